"""A build's page. Without JavaScript, the page of a running build reloads itself until the build ends."""

from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.db.models import Count, OuterRef, Q, Subquery, Sum, Window
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import require_safe

from builds.artifacts import artifacts_of
from builds.logs.lines import LogIndex
from builds.models import Build, BuildEvent, Release
from builds.operations.usage import usage_of
from builds.pages.access import visible_builds
from builds.pages.builds.log import evidence_of, window_of
from builds.pages.builds.timeline import timeline_of
from builds.pages.files.tree import rows_of, tree_of
from builds.queue.forecast import queue_document
from chef.jobs.models import Status
from projects.engine.repairs.decisions import MEANING, Ending

ARTIFACTS_SHOWN = 200
RELATED_SHOWN = 20
BLOCKED = {
    "owner_limit": "You have as many builds running as one owner may: it starts when one of them has ended.",
    "all_workers_busy": "All workers are busy.",
    "no_workers": "No worker is running: it starts when the operator starts one.",
    "backoff": "It was put back after a fault of ours, and starts again in a moment.",
    "paused": "The operator has paused the queue: it starts when that is over.",
    "quarantined": "The operator has put this project in quarantine: it starts when the project is released.",
}


@login_required
@require_safe
@gzip_page
def build_page(request: HttpRequest, pk: UUID) -> HttpResponse:
    """One build: progress, verdict, log and outputs. 404 for other users' builds."""
    build = _build(request, pk)
    return render(request, "builds/build.html", _context(request, build, request.GET.get("log", "")))


@login_required
@require_safe
@gzip_page
def build_state(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The parts of the page that change while a build runs, except the log."""
    build = _build(request, pk)
    return render(request, "builds/parts/update.html", _context(request, build, ""))


def _build(request: HttpRequest, pk: UUID) -> Build:
    rows = visible_builds(request).select_related("project__owner", "revision", "retry_of")
    rows = rows.select_related("generation__root", "generation__best", "repair_of").defer("revision__strategy")
    last = BuildEvent.objects.filter(build=OuterRef("pk")).order_by("-pk").values("pk")[:1]
    return get_object_or_404(rows.annotate(last_event=Subquery(last)), pk=pk)


def _context(request: HttpRequest, build: Build, log_from: str) -> dict[str, Any]:
    index = LogIndex(build)
    window = window_of(index, log_from)
    is_own = build.owner_id == request.user.pk
    artifacts = _artifacts(build)
    queue = queue_document(build)
    return {
        "tab": "builds",
        "build": build,
        "project": build.project,
        "is_own": is_own,
        "queue": queue,
        "blocked": BLOCKED.get((queue or {}).get("blockedBy") or "", ""),
        "max_attempts": settings.MAX_ATTEMPTS,
        "timeline": timeline_of(build),
        "window": window,
        "evidence": evidence_of(build, index, window),
        "usage": usage_of(build),
        "releases": _releases_of(build),
        "ending": _ending_of(build),
        **_related(build),
        **artifacts,
    }


def _artifacts(build: Build) -> dict[str, Any]:
    """The tree of the outputs, or only their number if there are too many: one query."""
    if build.status != Status.COMPLETED:
        return {"can_publish": False}
    rows = artifacts_of(build).annotate(
        in_all=Window(Count("pk")),
        bytes_in_all=Window(Sum("size")),
        pages=Window(Count("pk", filter=Q(name="index.html") | Q(name__endswith="/index.html"))),
    )
    names = ("name", "size", "in_all", "bytes_in_all", "pages")
    found = list(rows.order_by("name").values_list(*names)[:ARTIFACTS_SHOWN])
    if not found:
        return {"can_publish": False}
    *_, count, size, pages = found[0]
    tree = tree_of((path, its_size) for path, its_size, *_ in found)
    return {
        "outputs": count,
        "outputs_size": size,
        "tree": rows_of(tree),
        "has_all": count <= ARTIFACTS_SHOWN,
        "shown": ARTIFACTS_SHOWN,
        "can_publish": pages > 0,
    }


def _related(build: Build) -> dict[str, Any]:
    """Later builds that follow from this one: repairs and retries. One query."""
    if not build.is_terminal:
        return {"repairs": [], "retries": []}
    rows = Build.objects.filter(Q(repair_of=build) | Q(retry_of=build)).order_by("number")
    found = list(rows.only("number", "status", "repair_of", "retry_of")[:RELATED_SHOWN])
    return {
        "repairs": [one for one in found if one.repair_of_id == build.pk],
        "retries": [one for one in found if one.retry_of_id == build.pk],
    }


def _releases_of(build: Build) -> list[Release]:
    """The latest releases of the build; the live one first."""
    if build.status != Status.COMPLETED:
        return []
    rows = build.releases.select_related("project__site").order_by("-number")[:RELATED_SHOWN]
    return sorted(rows, key=lambda release: not release.is_live)


def _ending_of(build: Build) -> str:
    """Why the generation's repairs have ended; empty if they have not, or it has none."""
    generation = build.generation
    return MEANING[Ending(generation.fix_ending)] if generation and generation.fix_ending else ""
