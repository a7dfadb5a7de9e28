"""A project's source files, of any revision: the tree and one file of it."""

import re
from typing import Any
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from builds.models import Build
from builds.pages.access import visible_projects
from builds.pages.files.embeddable_images import data_uri, raster_of
from builds.pages.files.tree import rows_of, tree_of
from chef.text.hidden_characters import hides
from chef.text.source_text import has_colours, hides_something, html_lines, table_rows, text_of
from projects.models import Project, Revision, SourceFile

LINES_SHOWN = 3_000
REVISIONS_SHOWN = 50
MAX_NUMBER = 2**31 - 1  # the largest value of the column
_FIRST_READ = (r"readme(\.\w+)?", r"package\.json", r"pyproject\.toml", r"index\.html")


@login_required
def code_page(request: HttpRequest, pk: UUID, number: int | None = None, path: str = "") -> HttpResponse:
    """One file of a revision; by default the newest revision's README or other main file."""
    project = get_object_or_404(visible_projects(request).select_related("owner"), pk=pk)
    if wanted := _number(request, "revision"):
        return redirect("code-page", project.pk, wanted)
    revisions = revisions_of(project)
    revision = revisions.first() if number is None else revision_of(revisions, number)
    context: dict[str, Any] = {"tab": "code", "project": project, "revision": revision}
    context["is_own"] = project.owner_id == request.user.pk
    if revision is None:
        context["generation"] = project.generations.order_by("-created_at").first()
        return render(request, "projects/code.html", context)
    files = list(revision.files.order_by("path").values_list("path", "size"))
    path = path or _first_read([each for each, _ in files])
    file = revision.files.filter(path=path).first() if "\0" not in path else None
    if file and (line := _number(request, "line")):
        address = reverse("code-file", args=[project.pk, revision.number, path])
        return redirect(f"{address}?from={_page_start(line)}#L{line}")
    context |= {
        "path": path,
        "path_hides": hides(path),
        "tree": rows_of(tree_of(files), current=path),
        "base": reverse("code-page", args=[project.pk, revision.number]),
        "revisions": (others := list(revisions[:REVISIONS_SHOWN])),
        "several": len(others) > 1,
        "has_more": len(others) == REVISIONS_SHOWN,
        "previous": revision.number - 1,
        "file": file,
        **(_shown(file, start=_page_start(_number(request, "from"))) if file else {}),
    }
    return render(request, "projects/code.html", context, status=200 if file else 404)


def revisions_of(project: Project) -> QuerySet[Any]:
    """Revisions, newest first, each with its last build."""
    last = Build.objects.filter(revision=OuterRef("pk")).order_by("-number")
    rows = Revision.objects.filter(project=project).order_by("-number").defer("strategy", "dependencies")
    return rows.annotate(
        build_id=Subquery(last.values("pk")[:1]),
        build_number=Subquery(last.values("number")[:1]),
        build_status=Subquery(last.values("status")[:1]),
    )


def revision_of(revisions: QuerySet[Any], number: int) -> Any:
    """The revision with that number. Raises Http404."""
    if number > MAX_NUMBER:
        raise Http404
    return get_object_or_404(revisions, number=number)


def _first_read(paths: list[str]) -> str:
    for pattern in _FIRST_READ:
        for path in paths:
            if re.fullmatch(pattern, path, re.IGNORECASE):
                return path
    return paths[0] if paths else ""


def _number(request: HttpRequest, name: str) -> int:
    """A number in the query string; 0 if it is missing or invalid."""
    text = request.GET.get(name, "")
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else 0


def _page_start(line: int) -> int:
    """The first line of the page that holds the line."""
    return (max(line, 1) - 1) // LINES_SHOWN * LINES_SHOWN + 1


def _shown(file: SourceFile, *, start: int) -> dict[str, Any]:
    """The context for a file: an image, or lines from `start` on, or that it is binary."""
    content = bytes(file.content)
    raster = raster_of(content)
    if raster:
        shows = raster.can_be_shown(len(content))
        return {"raster": raster, "image": data_uri(raster.media_type, content) if shows else ""}
    text = text_of(content)
    if text is None:
        return {"is_binary": True}
    total = len(text.lines)
    start = start if start <= total else 1
    end = min(start + LINES_SHOWN - 1, total)
    lines, is_coloured = html_lines(text.lines, file.path, first=start, last=end)
    return {
        "rows": table_rows(lines, start),
        "total": total,
        "first": start,
        "last": end,
        "before": start - LINES_SHOWN if start > 1 else 0,
        "after": end + 1 if end < total else 0,
        "page_size": LINES_SHOWN,
        "encoding": text.encoding,
        "hides": hides_something(text.lines),
        "too_much": not is_coloured and has_colours(file.path),
    }
