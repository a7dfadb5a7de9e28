"""All about one build, in the order in which one asks when something is wrong: what, why, where, and what it left."""

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
from chef.web.ansi import plain

LOG_LINES = 200
MOST_EVENTS, MOST_ARTIFACTS, MOST_DELIVERIES, MOST_RELATED = 200, 20, 50, 20


def facts_of(build: Build) -> dict[str, Any]:
    """What the page's template shows beside the build itself, which was read with all that it refers to."""
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
    """The last lines of the current attempt's log as (stream, text), as they are stored: secrets are masked there."""
    rows = LogChunk.objects.filter(build=build, attempt=build.fence).order_by("-sequence")
    # Each chunk has a line or more.
    chunks = list(rows.values_list("stream", "text")[:LOG_LINES])[::-1]
    lines = [(stream, line) for stream, text in chunks for line in plain(text).splitlines(keepends=True) if line]
    return lines[-LOG_LINES:]


def _lease_of(build: Build) -> dict[str, Any] | None:
    """How long its worker may still be silent, in seconds; less than nothing where the reaper is late."""
    if build.lease_expires_at is None:
        return None
    return {"left": (build.lease_expires_at - timezone.now()).total_seconds(), "of": build.lease_seconds}


def _events_of(build: Build) -> list[BuildEvent]:
    return list(build.events.order_by("-pk")[:MOST_EVENTS])[::-1]


def _artifacts_of(build: Build) -> Sequence[Artifact]:
    """The largest of them, each with how many there are and their size together: one query."""
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
    """What was built because of it: asked for by a person, or by the loop that repairs."""
    if not build.is_terminal or build.status == Status.COMPLETED:
        return []
    return list(Build.objects.filter(retry_of=build).order_by("number").only("number", "status")[:MOST_RELATED])
