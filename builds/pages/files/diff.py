"""The diff between two revisions of a project."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render

from builds.pages.access import visible_projects
from builds.pages.files.code import MAX_NUMBER, revisions_of
from builds.pages.files.line_diff import Hunk, difference
from chef.text.source_text import hides_something, text_of
from projects.comparison import Change, Kind, changes_between
from projects.models import Project, Revision, SourceFile

# Limits of the whole page and of each file on it; the page of one file (`?path=`) shows more lines.
FILES_SHOWN = 50
BYTES_READ = 2 * 1024**2
LINES_SHOWN, LINES_OF_EACH, LINES_OF_ONE = 3_000, 400, 6_000
SECONDS = 1.0


@dataclass
class Shown:
    """A change as the page shows it. `why_not` says why its lines are not shown, or not all of them."""

    change: Change
    hunks: list[Hunk] = field(default_factory=list)
    added: int = 0
    removed: int = 0
    skipped: int = 0
    is_cut: bool = False
    is_rough: bool = False
    hides: bool = False
    why_not: str = ""
    has_own_page: bool = False


@login_required
def diff_page(request: HttpRequest, pk: UUID, before: int, after: int) -> HttpResponse:
    """The changed files between two revisions, with their lines; with `?path=`, only one file."""
    project = get_object_or_404(visible_projects(request).select_related("owner"), pk=pk)
    old, new = _two_revisions(project, before, after)
    changes = changes_between(old, new)
    only = request.GET.get("path", "")
    chosen = [change for change in changes if change.path == only] if only else changes
    if only and not chosen:
        raise Http404
    shown = shown_changes(old, new, chosen, lines_of_each=LINES_OF_ONE if only else LINES_OF_EACH)
    context = {
        "tab": "code",
        "project": project,
        "before": old,
        "after": new,
        "changes": changes,
        "shown": shown,
        "only": only,
        "is_split": request.GET.get("view") == "split",
        "added": sum(each.added for each in shown),
        "removed": sum(each.removed for each in shown),
        "rest": chosen[len(shown) :],
    }
    return render(request, "projects/diff.html", context)


def _two_revisions(project: Project, before: int, after: int) -> tuple[Any, Any]:
    """The two revisions, in one query. Raises Http404."""
    wanted = [number for number in (before, after) if number <= MAX_NUMBER]
    found = {revision.number: revision for revision in revisions_of(project).filter(number__in=wanted)}
    if before not in found or after not in found:
        raise Http404
    return found[before], found[after]


def shown_changes(old: Revision, new: Revision, changes: Sequence[Change], *, lines_of_each: int) -> list[Shown]:
    """The first changes with their lines, within the limits on files, bytes and lines."""
    deadline = time.thread_time() + SECONDS
    read: list[Change] = []
    size = 0
    for change in changes[:FILES_SHOWN]:
        size += change.size_before + change.size_after
        if size > BYTES_READ and read:
            break
        read.append(change)
    contents = _contents((old, [change.before for change in read]), (new, [change.after for change in read]))
    shown, room = [], max(LINES_SHOWN, lines_of_each)
    for change in read:
        before, after = contents.get((old.pk, change.before), b""), contents.get((new.pk, change.after), b"")
        each = _shown_change(change, before, after, most=min(lines_of_each, room), deadline=deadline)
        each.has_own_page = lines_of_each < LINES_OF_ONE and each.is_cut
        room -= sum(len(hunk.lines) for hunk in each.hunks)
        shown.append(each)
    return shown


def _contents(*wanted: tuple[Revision, list[str]]) -> dict[tuple[int, str], bytes]:
    """The contents of files, by (key of the revision, path)."""
    where = Q(pk=None)
    for revision, paths in wanted:
        where |= Q(revision=revision, path__in=[path for path in paths if path])
    rows = SourceFile.objects.filter(where).values_list("revision_id", "path", "content")
    return {(revision, path): bytes(content) for revision, path, content in rows}


def _shown_change(change: Change, before: bytes, after: bytes, *, most: int, deadline: float) -> Shown:
    if before == after:
        return Shown(change)
    old, new = text_of(before), text_of(after)
    if old is None or new is None:
        return Shown(change, why_not="This file is not text, so its lines are not shown.")
    found = difference(old.lines, new.lines, most=most, deadline=deadline)
    why_not = f"{found.left_out:,} more lines are not shown." if found.left_out else ""
    if not found.added + found.removed:
        why_not = "The lines are the same: only their ends or their encoding have changed."
    return Shown(
        change,
        found.hunks,
        found.added,
        found.removed,
        found.skipped if change.kind == Kind.CHANGED else 0,
        is_cut=found.left_out > 0,
        is_rough=found.is_rough,
        hides=any(hides_something([line.text for line in hunk.lines]) for hunk in found.hunks),
        why_not=why_not,
    )
