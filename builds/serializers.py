"""What goes out over the wire about builds: plain functions from rows to the documents that the API describes."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from builds.models import Artifact, Attempt, Build, LogChunk, PhaseRun, Status
from builds.queue import in_claim_order


def address(request: HttpRequest, name: str, *args: Any) -> str:
    """An absolute URL: below CHEF_URL when that is set, else below what the client itself used."""
    path = reverse(name, args=args)
    return f"{settings.CHEF_URL}{path}" if settings.CHEF_URL else request.build_absolute_uri(path)


def links(request: HttpRequest, build: Build) -> dict[str, str]:
    project = build.project_id
    query = f"?jobId={build.pk}"
    return {
        "status": address(request, "status", project) + query,
        "logs": address(request, "logs", project) + query,
        "artifacts": address(request, "artifacts", project) + query,
        "page": address(request, "build-page", build.pk),
    }


def accepted(request: HttpRequest, build: Build) -> dict[str, Any]:
    return {
        "projectId": build.project_id,
        "jobId": build.pk,
        "status": build.status,
        "message": "The build is queued. Ask `links.status` how it is getting on.",
        "links": links(request, build),
    }


def build_document(request: HttpRequest, build: Build) -> dict[str, Any]:
    return {
        "projectId": build.project_id,
        "jobId": build.pk,
        "number": build.number,
        "status": build.status,
        "phase": build.phase or None,
        "progress": build.progress,
        "attempt": build.fence,
        "maxAttempts": settings.MAX_ATTEMPTS,
        "queue": _queue(build),
        "strategy": build.plan,
        "image": build.image or None,
        "revision": build.revision.number,
        "retryOf": build.retry_of_id,
        "createdAt": build.created_at,
        "startedAt": build.started_at,
        "finishedAt": build.finished_at,
        "durationMs": _milliseconds(build),
        "phases": [_phase(run) for run in _current_phases(build)],
        "verdict": build.verdict,
        "usage": {**_NO_USAGE, **build.usage, "logBytes": build.log_bytes},
        "egress": build.egress,
        "links": links(request, build),
    }


_NO_USAGE = {"peakMemoryBytes": None, "cpuSeconds": None, "diskBytes": None}


def _queue(build: Build) -> dict[str, Any] | None:
    if build.status != Status.QUEUED:
        return None
    # Those that are claimed before this one, and itself; nobody while it waits out a back-off.
    order = list(in_claim_order(timezone.now()).values_list("pk", flat=True)[:1000])
    return {"position": order.index(build.pk) + 1 if build.pk in order else None}


def _current_phases(build: Build) -> list[PhaseRun]:
    attempt = Attempt.objects.filter(build=build, number=build.fence).prefetch_related("phases").first()
    return list(attempt.phases.all()) if attempt else []


def _phase(run: PhaseRun) -> dict[str, Any]:
    return {
        "name": run.name,
        "status": run.status,
        "startedAt": run.started_at,
        "finishedAt": run.finished_at,
        "durationMs": _milliseconds(run),
        "exitCode": run.exit_code,
    }


def _milliseconds(row: Build | PhaseRun) -> int | None:
    if not row.started_at or not row.finished_at:
        return None
    return round((row.finished_at - row.started_at).total_seconds() * 1000)


def log_entry(chunk: LogChunk) -> dict[str, Any]:
    return {
        "sequence": chunk.sequence,
        "attempt": chunk.attempt,
        "phase": chunk.phase,
        "stream": chunk.stream,
        "timestamp": chunk.timestamp,
        "text": chunk.text,
    }


def artifact_document(request: HttpRequest, artifact: Artifact, build: Build) -> dict[str, Any]:
    return {
        "name": artifact.name,
        "size": artifact.size,
        "sha256": artifact.sha256,
        "contentType": artifact.content_type,
        "url": address(request, "artifact", build.project_id, artifact.name) + f"?jobId={build.pk}",
    }
