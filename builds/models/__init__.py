"""The durable record of all that happens to a project after its files are there."""

from builds.models.builds import (
    PROGRESS,
    Artifact,
    Attempt,
    Build,
    BuildEvent,
    BuildQuerySet,
    LogChunk,
    OwnerTurn,
    PhaseName,
    PhaseRun,
    Priority,
    WorkerHost,
)
from builds.models.webhooks import (
    EVENT_NAMES,
    RESULT_EVENTS,
    TEST_EVENT,
    Delivery,
    DeliveryTry,
    EventName,
    WebhookEndpoint,
)

__all__ = [
    "EVENT_NAMES",
    "PROGRESS",
    "RESULT_EVENTS",
    "TEST_EVENT",
    "Artifact",
    "Attempt",
    "Build",
    "BuildEvent",
    "BuildQuerySet",
    "Delivery",
    "DeliveryTry",
    "EventName",
    "LogChunk",
    "OwnerTurn",
    "PhaseName",
    "PhaseRun",
    "Priority",
    "WebhookEndpoint",
    "WorkerHost",
]
