"""The home page: the user's projects and the state of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from builds.models import Build, Site
from builds.pages.access import visible_projects
from builds.pages.paging import page_of
from projects.models import Generation, Project

PROJECTS_SHOWN = 25


@dataclass(frozen=True)
class Row:
    """A project in the list: its last build, its active generation, and its site's address."""

    project: Project
    build: Build | None
    generation: Generation | None
    site: str

    @property
    def is_under_way(self) -> bool:
        return self.generation is not None or bool(self.build and not self.build.is_terminal)


@login_required
def home(request: HttpRequest) -> HttpResponse:
    """Projects, newest first; `?q=` filters them by name."""
    wanted = request.GET.get("q", "").replace("\0", "").strip()[:100]
    projects = visible_projects(request).select_related("owner")
    shown = page_of(request, projects.filter(name__icontains=wanted) if wanted else projects, size=PROJECTS_SHOWN)
    rows = _rows(shown.rows)
    active = Build.objects.active().filter(owner=request.user.pk).order_by()
    counts = dict(active.values_list("status").annotate(Count("pk")))
    context = {
        "here": "projects",
        "rows": rows,
        "shown": shown,
        "q": wanted,
        "counts": counts,
        "is_live": bool(counts) or any(row.is_under_way for row in rows),
    }
    return render(request, "projects/home.html", context)


def _rows(projects: Sequence[Project]) -> list[Row]:
    """Three queries, for any number of projects."""
    latest = Build.objects.latest_of(projects)
    sites = {site.pk: site for site in Site.objects.filter(project__in=projects, live__isnull=False)}
    writing: dict[UUID, Generation] = {
        generation.project_id: generation
        for generation in Generation.objects.active().filter(project__in=projects).defer("state", "diff")
    }
    return [
        Row(
            project,
            latest.get(project.pk),
            writing.get(project.pk),
            sites[project.pk].address if project.pk in sites else "",
        )
        for project in projects
    ]
