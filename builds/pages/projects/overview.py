"""A project's overview and its build history."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from builds import actions
from builds.models import Build, Site
from builds.pages.access import own_project, visible_projects
from builds.pages.forms import EditForm
from builds.pages.paging import page_of
from builds.pages.refusals import refusals_in, refusals_shown
from builds.templatetags.chef import took
from chef.jobs.models import Status
from projects.generations.actions import GenerationOptions, has_model, request_edit
from projects.models import Generation, Project

_BUILDS_SHOWN, _BARS, _RELEASES_SHOWN = 10, 30, 3
# Sizes in the chart, in SVG units.
_STEP, _BAR, _HEIGHT, _LEAST = 20, 14, 80, 3


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
@refusals_shown()
def project_page(request: HttpRequest, pk: UUID) -> HttpResponse:
    """A project's state. A POST builds it again (`do=build`) or requests a change by prompt (`do=change`)."""
    form = EditForm()
    if request.method == "POST":
        project = own_project(request, pk)
        form = EditForm(request.POST) if request.POST.get("do") == "change" else form
        if response := _change(request, project, form) if form.is_bound else _build(request, project):
            return response
    project = get_object_or_404(visible_projects(request).select_related("owner", "quarantine"), pk=pk)
    rows = project.builds.order_by("-number").select_related("revision", "generation__root")
    recent = list(rows.defer("egress", "usage", "generation__state", "generation__diff")[:_BARS])
    writing = Generation.objects.active().filter(project=project).defer("state", "diff").first()
    context = {
        "tab": "overview",
        "project": project,
        "is_owner": project.owner_id == request.user.pk,
        "latest": recent[0] if recent else None,
        "builds": recent[:_BUILDS_SHOWN],
        "has_more": len(recent) > _BUILDS_SHOWN,
        "chart": chart_of(recent),
        "writing": writing,
        "last_generation": None if recent or writing else project.generations.defer("state", "diff").first(),
        "site": Site.objects.filter(project=project).first(),
        "releases": project.releases.select_related("project__site", "build")[:_RELEASES_SHOWN],
        "form": form,
        "has_model": has_model(),
        "is_live": bool(writing) or any(not build.is_terminal for build in recent),
    }
    return render(request, "projects/overview.html", context, status=422 if request.method == "POST" else 200)


def _build(request: HttpRequest, project: Project) -> HttpResponse:
    build = actions.build_again(project, by=cast(User, request.user))
    return redirect("build-page", pk=build.pk)


def _change(request: HttpRequest, project: Project, form: EditForm) -> HttpResponse | None:
    """A redirect to the generation; None if it is refused: the form then has the reason."""
    if not form.is_valid():
        return None
    prompt = form.cleaned_data["prompt"].replace("\r\n", "\n")
    with refusals_in(form, "prompt"):
        generation = request_edit(project, by=cast(User, request.user), prompt=prompt, options=GenerationOptions())
        messages.success(request, "The project is being changed. What comes of it is built by itself.")
        return redirect("generation-page", pk=generation.pk)
    return None


@login_required
@require_safe
def project_builds(request: HttpRequest, pk: UUID) -> HttpResponse:
    """All builds of a project, newest first; `?status=` filters them."""
    project = get_object_or_404(visible_projects(request).select_related("owner"), pk=pk)
    wanted = request.GET.get("status", "")
    rows = Build.objects.filter(project=project, **({"status": wanted} if wanted in Status else {}))
    rows = rows.select_related("revision", "generation__root").defer(
        "egress", "usage", "generation__state", "generation__diff"
    )
    shown = page_of(request, rows)
    context = {
        "tab": "builds",
        "project": project,
        "builds": shown.rows,
        "shown": shown,
        "wanted": wanted,
        "statuses": Status.choices,
        "is_live": any(not build.is_terminal for build in shown.rows),
    }
    return render(request, "projects/builds.html", context)


# --- The chart ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """A build's duration as a bar: x, y and height in SVG units, from the upper left corner."""

    build: Build
    x: int
    y: int
    height: int


@dataclass(frozen=True)
class Chart:
    bars: Sequence[Bar]
    width: int
    height: int
    longest: float  # seconds


def chart_of(builds: Sequence[Build]) -> Chart | None:
    """Durations of finished builds, oldest first; None if there are fewer than two."""
    ended = [(build, span.total_seconds()) for build in reversed(builds) if (span := took(build)) is not None]
    if len(ended) < 2:
        return None
    longest = max(seconds for _, seconds in ended) or 1.0
    heights = [max(_LEAST, round(_HEIGHT * seconds / longest)) for _, seconds in ended]
    bars = [
        Bar(build, number * _STEP, _HEIGHT - height, height)
        for number, ((build, _), height) in enumerate(zip(ended, heights, strict=True))
    ]
    return Chart(bars, (len(bars) - 1) * _STEP + _BAR, _HEIGHT, longest)
