"""A build's page. Without JavaScript, that of a running one reloads itself until it has ended."""

import re
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render

from builds.models import Artifact, Attempt, Build, LogChunk, Release, Site
from builds.pages.access import visible_builds
from builds.sites.names import address, release_label
from projects.engine.fix_loop import MEANING, Ending
from projects.jobs import Status

LOG_CHUNKS_SHOWN = 400
ARTIFACTS_SHOWN = 500


@login_required
def build_page(request: HttpRequest, pk: UUID) -> HttpResponse:
    """One build: status, phases, verdict, the end of its log, its artifacts. Someone else's is not there."""
    rows = visible_builds(request).select_related("project__owner", "revision")
    rows = rows.select_related("generation__root", "generation__best", "repair_of")
    build = get_object_or_404(rows, pk=pk)
    attempt = Attempt.objects.filter(build=build, number=build.fence).prefetch_related("phases").first()
    chunks = LogChunk.objects.filter(build=build, attempt=build.fence).order_by("-sequence")[: LOG_CHUNKS_SHOWN + 1]
    shown = list(chunks)[:LOG_CHUNKS_SHOWN][::-1]
    kept = Artifact.objects.filter(build=build, attempt=build.fence) if build.status == Status.COMPLETED else None
    context = {
        "build": build,
        "ending": _ending_of(build),
        "repairs": build.repairs.order_by("number") if build.generation_id else [],
        "releases": _releases_of(build),
        "phases": attempt.phases.all() if attempt else [],
        "log": [(chunk.stream, re.sub(r"\x1b\[[0-9;:]*m", "", chunk.text)) for chunk in shown],
        "log_is_cut": len(chunks) > LOG_CHUNKS_SHOWN,
        "artifacts": list(kept[:ARTIFACTS_SHOWN]) if kept else [],
        "artifact_count": kept.count() if kept else 0,
    }
    return render(request, "builds/build.html", context)


def _releases_of(build: Build) -> list[tuple[Release, str, bool]]:
    """(release, where it is, whether it is live) of each time that the build was published; the live one first."""
    site = Site.objects.filter(project=build.project_id).first()
    if site is None:
        return []
    told = []
    for release in build.releases.all():
        is_live = release.pk == site.live_id
        label = site.name_id if is_live else release_label(site.name_id, release.number)
        told.append((release, address(label), is_live))
    return sorted(told, key=lambda row: not row[2])


def _ending_of(build: Build) -> str:
    """Why there are no further repairs of what a generation has made; empty where that is not to be told."""
    generation = build.generation
    return MEANING[Ending(generation.fix_ending)] if generation and generation.fix_ending else ""
