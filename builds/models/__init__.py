"""The durable record of all that happens to a project after its files are there."""

from builds.models.builds import (
    PROGRESS,
    Artifact,
    Attempt,
    Build,
    BuildEvent,
    BuildQuerySet,
    LogChunk,
    OutsideTurn,
    OwnerTurn,
    PhaseName,
    PhaseRun,
    Priority,
    Turn,
    WorkerHost,
)
from builds.models.releases import EncodedArtifact, Preview, Release, Site, SiteName

__all__ = [
    "PROGRESS",
    "Artifact",
    "Attempt",
    "Build",
    "BuildEvent",
    "BuildQuerySet",
    "EncodedArtifact",
    "LogChunk",
    "OutsideTurn",
    "OwnerTurn",
    "PhaseName",
    "PhaseRun",
    "Preview",
    "Priority",
    "Release",
    "Site",
    "SiteName",
    "Turn",
    "WorkerHost",
]
