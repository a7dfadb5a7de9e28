"""A project's releases: publishing, activating and taking down."""

from typing import cast
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from builds.models import Release, Site
from builds.pages.access import own_project, visible_projects
from builds.pages.forms import PublishForm
from builds.pages.paging import page_of
from builds.pages.refusals import refusals_in
from builds.sites import publishing
from chef.jobs.models import Status
from chef.web.pagination import HighestNumberFirst
from projects.models import Project


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def project_releases(request: HttpRequest, pk: UUID) -> HttpResponse:
    """All releases. A POST publishes (`do=publish`), activates (`do=activate`, `number`) or takes down (`do=down`)."""
    form = PublishForm()
    if request.method == "POST":
        project = own_project(request, pk)
        form = PublishForm(request.POST) if request.POST.get("do") == "publish" else form
        if _is_done(request, project, form):
            return redirect("project-releases", pk=pk)
    project = get_object_or_404(visible_projects(request).select_related("owner"), pk=pk)
    rows = Release.objects.filter(project=project).select_related("project__site", "build__revision", "created_by")
    rows = rows.defer("build__egress", "build__usage", "build__plan", "rules")
    shown = page_of(request, rows, order=HighestNumberFirst)
    context = {
        "tab": "releases",
        "project": project,
        "is_owner": project.owner_id == request.user.pk,
        "site": Site.objects.filter(project=project).first(),
        "releases": shown.rows,
        "shown": shown,
        "form": form,
        "newest": project.builds.filter(status=Status.COMPLETED).order_by("-number").only("number", "project").first(),
    }
    return render(request, "projects/releases.html", context, status=422 if form.is_bound else 200)


def _is_done(request: HttpRequest, project: Project, form: PublishForm) -> bool:
    """False if the form has to be shown again."""
    if form.is_bound:
        return _publish(request, project, form)
    if request.POST.get("do") == "activate":
        _activate(request, project)
    elif request.POST.get("do") == "down":
        publishing.take_down(project)
        messages.success(request, "The site is down. Its releases stay, each at its own address.")
    return True


def _publish(request: HttpRequest, project: Project, form: PublishForm) -> bool:
    if not form.is_valid():
        return False
    with refusals_in(form):
        build = publishing.build_to_publish(project)
        by = cast(User, request.user)
        release, warnings = publishing.publish_build(build, by=by, slug=form.cleaned_data["slug"])
    if form.errors:
        return False
    messages.success(request, f"Release {release.number} is live: it is build #{build.number}.")
    for warning in warnings:
        messages.warning(request, warning)
    return True


def _activate(request: HttpRequest, project: Project) -> None:
    number = request.POST.get("number", "")
    known = number.isascii() and number.isdigit() and len(number) < 10
    release = get_object_or_404(project.releases.all(), number=int(number) if known else 0)
    publishing.activate_release(release)
    messages.success(request, f"Release {release.number} is live.")
