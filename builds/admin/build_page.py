"""The facts on a build's admin page, in the order of a diagnosis: what happened, why, where, and what it left."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.db.models import Count, F, Window
from django.db.models.aggregates import Sum
from django.utils import timezone

from builds.models import Artifact, Build, BuildEvent, Delivery, LogChunk, Release
from builds.operations.usage import usage_of
from builds.queue.forecast import queue_document
from chef.jobs.models import Status
from chef.text.ansi import plain

LOG_LINES = 200
MOST_EVENTS, MOST_ARTIFACTS, MOST_DELIVERIES, MOST_RELATED = 200, 20, 50, 20


def facts_of(build: Build) -> dict[str, Any]:
    """The template's context besides the build itself, which must be read with its related rows."""
    artifacts = _artifacts_of(build)
    return {
        "attempts": list(build.attempts.prefetch_related("phases").order_by("-number")) if build.fence else [],
        "lease": _lease_of(build),
        "queue": queue_document(build),
        "max_attempts": settings.MAX_ATTEMPTS,
        "events": _events_of(build),
        "log": log_tail(build) if build.fence and not build.pruned_at else [],
        "log_lines": LOG_LINES,
        "usage": usage_of(build),
        "artifacts": artifacts,
        "artifact_count": artifacts[0].count if artifacts else 0,  # type: ignore[attr-defined]  # annotated
        "artifact_bytes": artifacts[0].total if artifacts else 0,  # type: ignore[attr-defined]
        "releases": _releases_of(build),
        "deliveries": list(
            Delivery.objects.filter(job_id=build.pk)
            .select_related("endpoint")
            .defer("body")
            .order_by("position")[:MOST_DELIVERIES]
        ),
        "retries": _retries_of(build),
    }


def log_tail(build: Build) -> list[tuple[str, str]]:
    """The last lines of the current attempt's log as (stream, text). Secrets are masked in the stored log already."""
    rows = LogChunk.objects.filter(build=build, attempt=build.fence).order_by("-sequence")
    # Each chunk has at least one line.
    chunks = list(rows.values_list("stream", "text")[:LOG_LINES])[::-1]
    lines = [(stream, line) for stream, text in chunks for line in plain(text).splitlines(keepends=True) if line]
    return lines[-LOG_LINES:]


def _lease_of(build: Build) -> dict[str, Any] | None:
    """`left`: seconds until the lease expires, negative if the reaper is late; `of`: its length in seconds."""
    if build.lease_expires_at is None:
        return None
    return {"left": (build.lease_expires_at - timezone.now()).total_seconds(), "of": build.lease_seconds}


def _events_of(build: Build) -> list[BuildEvent]:
    return list(build.events.order_by("-pk")[:MOST_EVENTS])[::-1]


def _artifacts_of(build: Build) -> Sequence[Artifact]:
    """The largest artifacts, each annotated with the `count` and `total` size of all: one query."""
    if build.status != Status.COMPLETED or build.pruned_at:
        return []
    rows = Artifact.objects.filter(build=build, attempt=build.fence)
    whole = {"count": Window(Count("pk")), "total": Window(Sum(F("size")))}
    return list(rows.annotate(**whole).order_by("-size", "name")[:MOST_ARTIFACTS])


def _releases_of(build: Build) -> list[Release]:
    if build.status != Status.COMPLETED:
        return []
    return list(build.releases.select_related("project__site").order_by("-number")[:MOST_RELATED])


def _retries_of(build: Build) -> list[Build]:
    """Retries of a build that did not complete."""
    if not build.is_terminal or build.status == Status.COMPLETED:
        return []
    return list(Build.objects.filter(retry_of=build).order_by("number").only("number", "status")[:MOST_RELATED])
