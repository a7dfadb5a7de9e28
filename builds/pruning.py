"""Pruning: removes logs and artifacts of old builds. The record of the build stays."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import Count, QuerySet, Sum
from django.utils import timezone

from builds.logs.text import ByteLength
from builds.models import Artifact, Build, EncodedArtifact, LogChunk
from chef.refusals import RefusalError
from chef.storage.deletion import discard_keys
from projects.models import Project


class NotPrunableError(RefusalError):
    """The build's log and artifacts are still needed; the text says what for."""


@dataclass(frozen=True)
class Freed:
    """What was removed from one or more builds."""

    artifacts: int = 0
    artifact_bytes: int = 0
    log_bytes: int = 0

    def __add__(self, other: "Freed") -> "Freed":
        return Freed(
            self.artifacts + other.artifacts,
            self.artifact_bytes + other.artifact_bytes,
            self.log_bytes + other.log_bytes,
        )


@transaction.atomic
def prune_build(build: Build) -> Freed:
    """Remove the log and artifacts of a finished, unpublished build. Raises NotPrunableError."""
    # The lock that publishing takes: a build cannot be published meanwhile.
    Project.objects.select_for_update().get(pk=build.project_id)
    build.refresh_from_db(fields=["status", "pruned_at"])
    if reason := why_not(build):
        raise NotPrunableError(reason)
    if build.releases.exists():
        raise NotPrunableError("It is published: visitors of its release need its artifacts.")
    if build.previews.filter(expires_at__gt=timezone.now()).exists():
        raise NotPrunableError("It has a preview: wait until that has expired.")
    artifacts, encoded = Artifact.objects.filter(build=build), EncodedArtifact.objects.filter(artifact__build=build)
    kept, compressed = _count_and_bytes(artifacts), _count_and_bytes(encoded)
    chunks = LogChunk.objects.filter(build=build)
    logged = chunks.aggregate(size=Sum(ByteLength("text")))["size"] or 0
    keys = [*artifacts.values_list("storage_key", flat=True), *encoded.values_list("storage_key", flat=True)]
    transaction.on_commit(partial(discard_keys, keys))
    artifacts.delete()
    chunks.delete()
    build.pruned_at = timezone.now()
    build.save(update_fields=["pruned_at"])
    return Freed(kept[0], kept[1] + compressed[1], logged)


def why_not(build: Build) -> str:
    """Why the build's state does not allow pruning; empty if it does."""
    if not build.is_terminal:
        return f"It is {build.status}: only finished builds can be pruned."
    return "It has already been pruned." if build.pruned_at else ""


def _count_and_bytes(rows: QuerySet[Any]) -> tuple[int, int]:
    found = rows.aggregate(count=Count("pk"), size=Sum("size"))
    return found["count"], found["size"] or 0
