"""Creates a project from a prompt, a folder, an archive or pasted texts; sends new files for an existing project.

Files are stored first, and built after the user has seen what was detected: see builds.pages.projects.choices.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import cast
from uuid import UUID

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods

from builds.pages.access import own_project
from builds.pages.forms import PromptForm
from builds.pages.projects.uploading import ARCHIVE, FolderHandler, pasted, sent_archive, sent_folder
from chef.refusals import RefusalError
from projects.files.ignore_rules import FILES, FOLDERS
from projects.files.limits import InvalidUploadError
from projects.files.paths import Fault, NewFile
from projects.files.uploads import keep_upload
from projects.generations.actions import GenerationOptions, has_model, request_generation
from projects.models import Project

_ROWS, _MORE_ROWS, _MOST_ROWS = 2, 3, 60


@csrf_exempt  # only until the upload handler is set: _answer is protected
@login_required
@require_http_methods(["GET", "POST"])
def new_project(request: HttpRequest) -> HttpResponse:
    """The page with the three ways to create a project."""
    return _with_folder_handler(request)


@csrf_exempt
@login_required
@require_http_methods(["GET", "POST"])
def new_files(request: HttpRequest, pk: UUID) -> HttpResponse:
    """New files for the user's own project: the complete set for its next revision."""
    return _with_folder_handler(request, own_project(request, pk))


def _with_folder_handler(request: HttpRequest, project: Project | None = None) -> HttpResponse:
    handler = FolderHandler(request)
    request.upload_handlers = [handler]
    return _answer(request, handler, project)


@csrf_protect
def _answer(request: HttpRequest, handler: FolderHandler, project: Project | None) -> HttpResponse:
    way = request.POST.get("way", "")
    try:
        if request.method == "POST" and way == "prompt" and project is None:
            return _from_prompt(request)
        if request.method == "POST" and way in _WAYS:
            return _WAYS[way](request, handler, project)
    except RefusalError as refused:
        return _page(request, project, faults=[str(reason) for reason in refused.reasons])
    return _page(request, project)


# --- From a prompt -----------------------------------------------------------------------------------------------


def _from_prompt(request: HttpRequest) -> HttpResponse:
    form = PromptForm(request.POST)
    if not form.is_valid():
        return _page(request, None)
    data = form.cleaned_data
    generation = request_generation(
        by=cast(User, request.user),
        prompt=data["prompt"].replace("\r\n", "\n"),
        name=data["name"],
        strategy=form.strategy(),
        options=GenerationOptions(tests=data["tests"], auto_fix=data["auto_fix"]),
    )
    return redirect("generation-page", pk=generation.pk)


# --- From files --------------------------------------------------------------------------------------------------


def _from_upload(request: HttpRequest, handler: FolderHandler, project: Project | None) -> HttpResponse:
    if archive := request.FILES.get(ARCHIVE):
        files, name = sent_archive(archive, handler)
    else:
        files, name = sent_folder(handler)
    left_out = handler.ignore_rules.left_out + _left_out_before(request)
    if not files:
        raise InvalidUploadError([Fault("no_files", "", _nothing_sent(left_out))])
    kept = handler.ignore_rules.without_outputs(files)
    left_out = handler.ignore_rules.left_out + _left_out_before(request)
    return _keep(request, project, kept, name, left_out)


def _nothing_sent(left_out: Counter[str]) -> str:
    if left_out:
        return f"All files were left out ({', '.join(left_out)}): choose the folder that holds the sources."
    return "Choose a folder or an archive first, or drop one here."


def _left_out_before(request: HttpRequest) -> Counter[str]:
    """What the browser has already left out, by name."""
    try:
        sent = json.loads(request.POST.get("left_out") or "{}")
    except ValueError:
        return Counter()
    pairs = sent.items() if isinstance(sent, dict) else []
    return Counter({str(name)[:60]: count for name, count in list(pairs)[:20] if isinstance(count, int) and count > 0})


def _from_texts(request: HttpRequest, handler: FolderHandler, project: Project | None) -> HttpResponse:
    paths, contents = request.POST.getlist("path"), request.POST.getlist("content")
    if "more" in request.POST:
        return _page(request, project, rows=len(paths) + _MORE_ROWS, status=200)
    return _keep(request, project, pasted(paths, contents), "", Counter())


def _keep(
    request: HttpRequest, project: Project | None, files: Sequence[NewFile], name: str, left_out: Counter[str]
) -> HttpResponse:
    given = request.POST.get("name", "").strip() or name or "project"
    name = "".join(char for char in given if char.isprintable())[:100] or "project"
    by = cast(User, request.user)
    upload = keep_upload(by=by, project=project, name=name, files=files, left_out=left_out)
    return redirect("choices", pk=upload.pk)


_WAYS = {"upload": _from_upload, "paste": _from_texts}


def _page(
    request: HttpRequest,
    project: Project | None,
    *,
    faults: Sequence[str] = (),
    rows: int = 0,
    status: int = 422,
) -> HttpResponse:
    """The page, with what was typed; 422 for a refused form."""
    paths, contents = request.POST.getlist("path"), request.POST.getlist("content")
    rows = rows or len(paths) or _ROWS
    way = request.POST.get("way", "")
    typed = list(zip(paths, contents, strict=False))[:_MOST_ROWS]
    context = {
        "here": "" if project else "new",
        "tab": "code",
        "project": project,
        "prompt": PromptForm(request.POST) if way == "prompt" else PromptForm(),
        "faults": faults,
        "way": way,
        "name": request.POST.get("name", ""),
        "rows": typed + [("", "")] * (min(rows, _MOST_ROWS) - len(typed)),
        "has_model": has_model(),
        "ignored": " ".join(sorted(FOLDERS | FILES)),
        "limits": {
            "files": settings.MAX_FILES,
            "file": settings.MAX_FILE_BYTES,
            "bytes": settings.MAX_PROJECT_BYTES,
        },
    }
    template = "projects/files.html" if project else "projects/new.html"
    return render(request, template, context, status=status if request.method == "POST" else 200)
