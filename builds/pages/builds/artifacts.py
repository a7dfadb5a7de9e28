"""Viewing a build's output files. Nothing in them is executed on our own origin: text is shown as text, images as data
URIs, and a page only on the origin of published sites, on request."""

from typing import cast
from urllib.parse import quote
from uuid import UUID

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import require_GET, require_POST

from builds.artifacts import artifacts_of
from builds.models import Artifact, Build, Preview
from builds.pages.access import visible_builds
from builds.pages.files.embeddable_images import MAX_BYTES, data_uri, raster_of
from builds.pages.files.tree import crumbs_of, tree_of
from builds.pages.refusals import show_refusal
from builds.site_names import address, preview_label
from builds.sites import publishing
from chef.refusals import RefusalError
from chef.text.source_text import hides_something, html_lines, table_rows, text_of

# Image types recognised by file name only; all others are recognised by their bytes.
IMAGE_TYPES = frozenset(["image/avif", "image/svg+xml", "image/vnd.microsoft.icon"])
MAX_TEXT_BYTES = 256 * 1024
MAX_LINES = 5_000
_PREVIEW_SECONDS = 3600


@login_required
@require_GET
@gzip_page
def artifacts_page(request: HttpRequest, pk: UUID) -> HttpResponse:
    """One folder of a build's outputs, for builds with very many files."""
    build = _build(request, pk)
    path = request.GET.get("in", "").strip("/")
    folder = tree_of(artifacts_of(build).values_list("name", "size")).at(path)
    if folder is None or not folder.count:
        raise Http404
    context = {"folder": folder, "crumbs": crumbs_of(path)}
    return render(request, "builds/artifacts.html", {**_about(request, build), **context})


@login_required
@require_GET
@gzip_page
def artifact_page(request: HttpRequest, pk: UUID, name: str) -> HttpResponse:
    """One output file: its content, or why it is not shown."""
    build = _build(request, pk)
    artifact = get_object_or_404(artifacts_of(build), name=name)
    context = {
        **_about(request, build),
        "artifact": artifact,
        "crumbs": crumbs_of(name)[:-1],
        "is_page": artifact.content_type == "text/html",
        "frame": _frame(request, build, artifact),
        **_shown(artifact),
    }
    return render(request, "builds/artifact.html", context)


@login_required
@require_POST
def preview(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Serve the outputs under an unguessable name, and show one page of them in a frame."""
    build = get_object_or_404(Build, pk=pk, owner=request.user.pk)
    name = request.POST.get("name", "")
    here = reverse("build-page-artifact", args=[build.pk, name]) if name else reverse("build-page", args=[build.pk])
    seconds = min(settings.PREVIEW_SECONDS, _PREVIEW_SECONDS)
    try:
        made = publishing.make_preview(build, by=cast(User, request.user), seconds=seconds)
    except RefusalError as refused:
        show_refusal(request, refused)
        return redirect(here)
    return redirect(f"{here}?preview={made.pk}#preview")


def _build(request: HttpRequest, pk: UUID) -> Build:
    return get_object_or_404(visible_builds(request).select_related("project"), pk=pk)


def _about(request: HttpRequest, build: Build) -> dict[str, object]:
    return {"tab": "builds", "build": build, "project": build.project, "is_own": build.owner_id == request.user.pk}


def _frame(request: HttpRequest, build: Build, artifact: Artifact) -> str:
    """The file's URL in the requested preview; empty without a preview, or if it does not serve the file."""
    try:
        preview_id = UUID(request.GET.get("preview", ""))
    except ValueError:
        return ""
    made = Preview.objects.filter(pk=preview_id, build=build, created_by=request.user.pk, expires_at__gt=timezone.now())
    found = made.first()
    prefix = f"{found.root}/" if found and found.root else ""
    if found is None or not artifact.name.startswith(prefix):
        return ""
    return address(preview_label(found.token)).rstrip("/") + "/" + quote(artifact.name.removeprefix(prefix))


def _shown(artifact: Artifact) -> dict[str, object]:
    content = _content(artifact, MAX_TEXT_BYTES)
    raster = raster_of(content)
    if raster or artifact.content_type in IMAGE_TYPES:
        if not (raster.can_be_shown(artifact.size) if raster else artifact.size <= MAX_BYTES):
            return {"why_not": "The picture is too large to be shown here: download it."}
        whole = content if len(content) == artifact.size else _content(artifact, MAX_BYTES)
        return {"picture": data_uri(raster.media_type if raster else artifact.content_type, whole)}
    text = text_of(_without_partial_line(content, artifact.size))
    if text is None:
        return {"why_not": "This is no text and no picture that could be shown here: download it."}
    lines = text.lines[:MAX_LINES]
    html, _ = html_lines(lines, artifact.name, first=1, last=len(lines))
    is_cut = artifact.size > len(content) or len(lines) < len(text.lines)
    return {"rows": table_rows(html, 1), "total": len(lines), "is_cut": is_cut, "hides": hides_something(lines)}


def _content(artifact: Artifact, most: int) -> bytes:
    with default_storage.open(artifact.storage_key) as file:
        return bytes(file.read(most))


def _without_partial_line(content: bytes, size: int) -> bytes:
    return content if len(content) == size else content.rsplit(b"\n", 1)[0]
