"""The step after builds.pages.projects.new: the detected strategy, to be adjusted and built."""

from collections.abc import Mapping, Sequence
from typing import Any, cast
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from builds.actions import submit_upload
from builds.pages.forms import ChoicesForm, StrategyForm
from builds.pages.one_time_secrets import no_store
from builds.pages.refusals import refusals_in
from builds.runner import strategy_request
from builds.runtimes.detection import DetectionError, Plan, detect
from projects.environment import Secret
from projects.files.paths import NewFile
from projects.files.uploads import files_of
from projects.models import Project, Upload

_PATHS_SHOWN = 200


@login_required
@require_http_methods(["GET", "POST"])
def choices(request: HttpRequest, pk: UUID) -> HttpResponse:
    """How the files of an upload will be built. A POST builds them, or discards them (`do=forget`)."""
    upload = Upload.objects.filter(pk=pk, owner=request.user.pk).select_related("project").first()
    if upload is None:
        messages.warning(request, "These files are not kept any more: they were built, or sent two hours ago.")
        return redirect("new-project")
    if request.POST.get("do") == "forget":
        upload.delete()
        return redirect("project-page", pk=upload.project_id) if upload.project_id else redirect("new-project")
    files = files_of(upload)
    requested = _last_request(upload.project)
    plan, error = _detected(files, requested)
    form = _form(request, upload, plan, requested)
    if form.is_bound and form.is_valid():
        _, error = _detected(files, form.strategy())
        built = None if error else _build(request, upload, form)
        if built:
            return built
    paths = sorted(file.path for file in files)
    context = {
        "here": "" if upload.project else "new",
        "tab": "code",
        "project": upload.project,
        "upload": upload,
        "form": form,
        "plan": plan,
        "error": error,
        "paths": paths[:_PATHS_SHOWN],
        "paths_left": max(0, len(paths) - _PATHS_SHOWN),
    }
    # The form shows what was typed again, including secrets.
    return no_store(render(request, "projects/choices.html", context, status=422 if form.is_bound else 200))


def _last_request(project: Project | None) -> dict[str, Any]:
    """The strategy request of the project's last revision: the default for the next one."""
    last = project.revisions.order_by("-number").only("strategy").first() if project else None
    return dict(last.strategy) if last else {}


def _detected(files: Sequence[NewFile], strategy: dict[str, Any]) -> tuple[Plan | None, DetectionError | None]:
    try:
        contents = {file.path: file.content for file in files}
        return detect(contents, dependencies={}, strategy=strategy_request(strategy)), None
    except DetectionError as error:
        return None, error


def _form(request: HttpRequest, upload: Upload, plan: Plan | None, requested: Mapping[str, Any]) -> StrategyForm:
    data = request.POST if request.method == "POST" else None
    detected = plan.as_json() if plan else None
    if upload.project:
        return StrategyForm(data, plan=detected, before=requested)
    form = ChoicesForm(data, plan=detected)
    form.initial["name"] = upload.name
    return form


def _build(request: HttpRequest, upload: Upload, form: StrategyForm) -> HttpResponse | None:
    """A redirect to the build; None if it is refused: the form then has the reason."""
    data, of_new_project = form.cleaned_data, {}
    if not upload.project:
        secrets = {name: Secret(value) for name, value in data["secrets"].items()}
        of_new_project = {"name": data["name"], "env": data["env"], "secrets": secrets}
    try:
        with refusals_in(form):
            build = submit_upload(upload, by=cast(User, request.user), strategy=form.strategy(), **of_new_project)
            return redirect("build-page", pk=build.pk)
    except Upload.DoesNotExist:  # it was built in the meantime
        return redirect("home")
    return None
