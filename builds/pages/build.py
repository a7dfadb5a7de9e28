"""A build's page. Without JavaScript, that of a running one reloads itself until it has ended."""

from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery, Sum, Window
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import require_safe

from builds.forecast import queue_document
from builds.log_lines import LogIndex
from builds.models import Build, BuildEvent, Release
from builds.pages.access import visible_builds
from builds.pages.artifacts import kept_of
from builds.pages.build_log import evidence_of, window_of
from builds.pages.file_tree import Folder, tree_of
from builds.pages.timeline import timeline_of
from builds.sites.names import address, release_label
from projects.engine.fix_loop import MEANING, Ending
from projects.jobs import Status

ARTIFACTS_SHOWN = 200
RELATED_SHOWN = 20
BLOCKED = {
    "owner_limit": "You have as many builds running as one owner may: it starts when one of them has ended.",
    "all_workers_busy": "All workers are busy.",
    "no_workers": "No worker is running: it starts when the operator starts one.",
    "backoff": "It was put back after a fault of ours, and starts again in a moment.",
}


@login_required
@require_safe
@gzip_page
def build_page(request: HttpRequest, pk: UUID) -> HttpResponse:
    """One build: how it is getting on, why it ended so, its log and its outputs. Someone else's is not there."""
    build = _build(request, pk)
    return render(request, "builds/build.html", _context(request, build, request.GET.get("log", "")))


@login_required
@require_safe
@gzip_page
def build_state(request: HttpRequest, pk: UUID) -> HttpResponse:
    """All of the page that changes while a build runs, but the log."""
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
        "build": build,
        "project": build.project,
        "is_own": is_own,
        "queue": queue,
        "blocked": BLOCKED.get((queue or {}).get("blockedBy") or "", ""),
        "max_attempts": settings.MAX_ATTEMPTS,
        "timeline": timeline_of(build),
        "window": window,
        "evidence": evidence_of(build, index, window),
        "usage": _usage(build),
        "releases": _releases_of(build),
        "ending": _ending_of(build),
        **_related(build),
        **artifacts,
    }


def _artifacts(build: Build) -> dict[str, Any]:
    """The tree of the outputs, or nothing but their number where there are too many: one query."""
    if build.status != Status.COMPLETED:
        return {"tree": Folder("", ""), "can_publish": False}
    rows = kept_of(build).annotate(
        in_all=Window(Count("pk")),
        bytes_in_all=Window(Sum("size")),
        pages=Window(Count("pk", filter=Q(name="index.html") | Q(name__endswith="/index.html"))),
    )
    shown: QuerySet[Any] = rows.defer("sha256", "storage_key").order_by("name")
    found = list(shown[: ARTIFACTS_SHOWN + 1])
    tree = tree_of(found[:ARTIFACTS_SHOWN])
    if found:
        tree.count, tree.size = found[0].in_all, found[0].bytes_in_all
    has_all = len(found) <= ARTIFACTS_SHOWN
    return {"tree": tree, "has_all": has_all, "shown": ARTIFACTS_SHOWN, "can_publish": bool(found and found[0].pages)}


def _usage(build: Build) -> list[dict[str, Any]]:
    """What was used of what there is: (label, kind of number, used, limit, per cent)."""
    plan, used = build.plan or {}, build.usage or {}
    seconds = (plan.get("timeout") or 0) / 1000
    took = ((build.finished_at or timezone.now()) - build.started_at).total_seconds() if build.started_at else None
    rows = [
        ("Time", "seconds", took, seconds),
        ("Peak memory", "bytes", used.get("peakMemoryBytes"), plan.get("memory")),
        ("CPU time", "seconds", used.get("cpuSeconds"), None),
        ("Outputs", "bytes", used.get("diskBytes"), settings.MAX_ARTIFACT_BYTES),
        ("Log", "bytes", build.log_bytes, settings.MAX_LOG_BYTES),
    ]
    return [
        {"label": label, "kind": kind, "used": value, "limit": limit, "share": _share(value, limit)}
        for label, kind, value, limit in rows
    ]


def _share(value: float | None, limit: float | None) -> float | None:
    return min(round(100 * value / limit, 1), 100) if value is not None and limit else None


def _related(build: Build) -> dict[str, Any]:
    """Later builds that came of this one: repairs of it, and the same again. One query."""
    if not build.is_terminal:
        return {"repairs": [], "retries": []}
    rows = Build.objects.filter(Q(repair_of=build) | Q(retry_of=build)).order_by("number")
    found = list(rows.only("number", "status", "repair_of", "retry_of")[:RELATED_SHOWN])
    return {
        "repairs": [one for one in found if one.repair_of_id == build.pk],
        "retries": [one for one in found if one.retry_of_id == build.pk],
    }


def _releases_of(build: Build) -> list[tuple[Release, str, bool]]:
    """(release, where it is, whether it is live) of the last times that the build was published; the live one first."""
    if build.status != Status.COMPLETED:
        return []
    rows = build.releases.select_related("project__site").order_by("-number")[:RELATED_SHOWN]
    told = []
    for release in rows:
        site = release.project.site
        is_live = release.pk == site.live_id
        label = site.name_id if is_live else release_label(site.name_id, release.number)
        told.append((release, address(label), is_live))
    return sorted(told, key=lambda row: not row[2])


def _ending_of(build: Build) -> str:
    """Why there are no further repairs of what a generation has made; empty where that is not to be told."""
    generation = build.generation
    return MEANING[Ending(generation.fix_ending)] if generation and generation.fix_ending else ""
