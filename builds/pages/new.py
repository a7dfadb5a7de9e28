"""A new project: from a prompt, from a folder or an archive, or from pasted texts.

Files are looked at first, and built once their sender has seen what was detected. Between the two steps they are an
Upload: see projects.uploads.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods

from builds.actions import submit_upload
from builds.detection import DetectionError, Plan, detect
from builds.pages.forms import ChoicesForm, PromptForm
from builds.pages.once import stored_nowhere
from builds.pages.refusals import REFUSALS, reasons
from builds.pages.uploading import ARCHIVE, FolderHandler, pasted, sent_archive, sent_folder
from builds.runner import wish_of
from projects.actions import NewFile, UploadRefused
from projects.environment import Secret
from projects.generations import Wishes, request_generation
from projects.models import Upload
from projects.noise import FILES, FOLDERS
from projects.paths import Fault
from projects.uploads import files_of, keep_upload

_ROWS, _MORE_ROWS, _MOST_ROWS = 2, 3, 60
_PATHS_SHOWN = 200


@csrf_exempt  # only until its form is read by the right handler: see below
@login_required
@require_http_methods(["GET", "POST"])
def new_project(request: HttpRequest) -> HttpResponse:
    """The three ways to a project."""
    handler = FolderHandler(request)
    request.upload_handlers = [handler]
    return _new_project(request, handler)


@csrf_protect
def _new_project(request: HttpRequest, handler: FolderHandler) -> HttpResponse:
    way = request.POST.get("way", "")
    if request.method != "POST" or way not in _WAYS:
        return _page(request)
    return _WAYS[way](request, handler)


# --- From a prompt -----------------------------------------------------------------------------------------------


def _from_prompt(request: HttpRequest, handler: FolderHandler) -> HttpResponse:
    form = PromptForm(request.POST)
    if not form.is_valid():
        return _page(request, prompt=form)
    data = form.cleaned_data
    try:
        generation = request_generation(
            by=cast(User, request.user),
            prompt=data["prompt"].replace("\r\n", "\n"),
            name=data["name"],
            strategy=form.strategy(),
            wishes=Wishes(tests=data["tests"], auto_fix=data["auto_fix"]),
        )
    except REFUSALS as refused:
        return _page(request, prompt=form, faults=reasons(refused))
    return redirect("generation-page", pk=generation.pk)


# --- From files --------------------------------------------------------------------------------------------------


def _from_upload(request: HttpRequest, handler: FolderHandler) -> HttpResponse:
    try:
        if archive := request.FILES.get(ARCHIVE):
            files, name = sent_archive(archive, handler)
        else:
            files, name = sent_folder(handler)
        left_out = handler.sieve.left_out + _left_out_before(request)
        if not files:
            raise UploadRefused([Fault("no_files", "", _nothing_sent(left_out))])
        kept = handler.sieve.without_outputs(files)
        left_out = handler.sieve.left_out + _left_out_before(request)
        return _keep(request, kept, name, left_out)
    except UploadRefused as refused:
        return _page(request, faults=reasons(refused))


def _nothing_sent(left_out: Counter[str]) -> str:
    if left_out:
        return f"All files were left out ({', '.join(left_out)}): choose the folder that holds the sources."
    return "Choose a folder or an archive first, or drop one here."


def _left_out_before(request: HttpRequest) -> Counter[str]:
    """What the browser has left out by itself."""
    try:
        told = json.loads(request.POST.get("left_out") or "{}")
    except ValueError:
        return Counter()
    pairs = told.items() if isinstance(told, dict) else []
    return Counter({str(name)[:60]: count for name, count in list(pairs)[:20] if isinstance(count, int) and count > 0})


def _from_texts(request: HttpRequest, handler: FolderHandler) -> HttpResponse:
    paths, contents = request.POST.getlist("path"), request.POST.getlist("content")
    if "more" in request.POST:
        return _page(request, rows=len(paths) + _MORE_ROWS, status=200)
    try:
        return _keep(request, pasted(paths, contents), "", Counter())
    except UploadRefused as refused:
        return _page(request, faults=reasons(refused), rows=len(paths))


def _keep(request: HttpRequest, files: Sequence[NewFile], name: str, left_out: Counter[str]) -> HttpResponse:
    given = request.POST.get("name", "").strip() or name or "project"
    name = "".join(char for char in given if char.isprintable())[:100] or "project"
    upload = keep_upload(by=cast(User, request.user), name=name, files=files, left_out=left_out)
    return redirect("new-project-choices", pk=upload.pk)


_WAYS = {"prompt": _from_prompt, "upload": _from_upload, "paste": _from_texts}


def _page(
    request: HttpRequest,
    *,
    prompt: PromptForm | None = None,
    faults: Sequence[str] = (),
    rows: int = _ROWS,
    status: int = 422,
) -> HttpResponse:
    """The page, with what was typed. Of a form that was refused, 422."""
    paths, contents = request.POST.getlist("path"), request.POST.getlist("content")
    typed = list(zip(paths, contents, strict=False))[:_MOST_ROWS]
    context = {
        "here": "new",
        "prompt": prompt or PromptForm(),
        "faults": faults,
        "way": request.POST.get("way", ""),
        "name": request.POST.get("name", ""),
        "rows": typed + [("", "")] * (min(rows, _MOST_ROWS) - len(typed)),
        "has_model": settings.AI_PROVIDER != "starter",
        "noise": " ".join(sorted(FOLDERS | FILES)),
        "limits": {
            "files": settings.MAX_FILES,
            "file": settings.MAX_FILE_BYTES,
            "bytes": settings.MAX_PROJECT_BYTES,
        },
    }
    return render(request, "projects/new.html", context, status=status if request.method == "POST" else 200)


# --- How to build them -------------------------------------------------------------------------------------------


@login_required
@require_http_methods(["GET", "POST"])
def choices(request: HttpRequest, pk: UUID) -> HttpResponse:
    """What was detected in an upload, to be changed and built."""
    upload = Upload.objects.filter(pk=pk, owner=request.user.pk).first()
    if upload is None:
        messages.warning(request, "These files are not kept any more: they were built, or sent two hours ago.")
        return redirect("new-project")
    if request.POST.get("do") == "forget":
        upload.delete()
        return redirect("new-project")
    files = files_of(upload)
    plan, fault = _detected(files, {})
    detected = plan.as_json() if plan else None
    if request.method != "POST":
        form = ChoicesForm(plan=detected)
        form.initial["name"] = upload.name
        return _choices_page(request, upload, files, form, plan=plan, fault=fault)
    form = ChoicesForm(request.POST, plan=detected)
    if not form.is_valid():
        return _choices_page(request, upload, files, form, plan=plan, fault=fault)
    _, fault = _detected(files, form.strategy())
    if fault:
        return _choices_page(request, upload, files, form, plan=plan, fault=fault)
    return _build(request, upload, form) or _choices_page(request, upload, files, form, plan=plan)


def _detected(files: Sequence[NewFile], strategy: dict[str, Any]) -> tuple[Plan | None, DetectionError | None]:
    try:
        return detect({file.path: file.content for file in files}, dependencies={}, wish=wish_of(strategy)), None
    except DetectionError as error:
        return None, error


def _build(request: HttpRequest, upload: Upload, form: ChoicesForm) -> HttpResponse | None:
    """Goes to the build; None when it is refused, which the form then says."""
    data = form.cleaned_data
    try:
        build = submit_upload(
            upload,
            by=cast(User, request.user),
            name=data["name"],
            strategy=form.strategy(),
            env=data["env"],
            secrets={name: Secret(value) for name, value in data["secrets"].items()},
        )
    except Upload.DoesNotExist:  # it has just been built
        return redirect("home")
    except REFUSALS as refused:
        for reason in reasons(refused):
            form.add_error(None, reason)
        return None
    return redirect("build-page", pk=build.pk)


def _choices_page(
    request: HttpRequest,
    upload: Upload,
    files: Sequence[NewFile],
    form: ChoicesForm,
    *,
    plan: Plan | None,
    fault: DetectionError | None = None,
) -> HttpResponse:
    paths = sorted(file.path for file in files)
    context = {
        "here": "new",
        "upload": upload,
        "form": form,
        "plan": plan,
        "fault": fault,
        "paths": paths[:_PATHS_SHOWN],
        "paths_left": max(0, len(paths) - _PATHS_SHOWN),
        "left_out": sum(upload.left_out.values()),
    }
    # What was typed is shown again, secrets too.
    return stored_nowhere(
        render(request, "projects/choices.html", context, status=422 if request.method == "POST" else 200)
    )
