"""Which files differ between two revisions of a project, without their contents."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from django.db.models import Exists, OuterRef

from projects.models import Revision, SourceFile


class Kind(StrEnum):
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    RENAMED = "renamed"


@dataclass(frozen=True)
class Change:
    """The change of one file: its path and size in bytes before and after, empty and 0 where it did not exist.

    A renamed file has the same bytes as before. `mode`: whether it became executable (True) or no longer is (False);
    None if unchanged.
    """

    kind: Kind
    before: str
    after: str
    size_before: int = 0
    size_after: int = 0
    mode: bool | None = None

    @property
    def path(self) -> str:
        return self.after or self.before


def changes_between(before: Revision, after: Revision) -> list[Change]:
    """The changes from one revision to the other, ordered by path.

    The database compares the bytes of files with one path, so that unchanged ones never leave it.
    """
    same = SourceFile.objects.filter(
        revision=before, path=OuterRef("path"), size=OuterRef("size"), content=OuterRef("content")
    )
    old = {path: (size, mode) for path, size, mode in before.files.values_list("path", "size", "executable")}
    rows = after.files.annotate(is_same=Exists(same)).values_list("path", "size", "executable", "is_same")
    changes, added = [], {}
    for path, size, mode, is_same in rows:
        if path not in old:
            added[path] = size
            continue
        old_size, old_mode = old.pop(path)
        if not is_same or mode != old_mode:
            changed = None if mode == old_mode else mode
            changes.append(Change(Kind.CHANGED, path, path, old_size, size, changed))
    removed = {path: size for path, (size, _) in old.items()}
    for path, origin in _renamed(before, removed, after, added).items():
        size = added.pop(path)
        removed.pop(origin)
        changes.append(Change(Kind.RENAMED, origin, path, size, size))
    changes += [Change(Kind.ADDED, "", path, 0, size) for path, size in added.items()]
    changes += [Change(Kind.REMOVED, path, "", size, 0) for path, size in removed.items()]
    return sorted(changes, key=lambda change: change.path)


def _renamed(before: Revision, removed: dict[str, int], after: Revision, added: dict[str, int]) -> dict[str, str]:
    """The former path of each added file with the same bytes as a removed one. Empty files do not count."""
    sizes = set(removed.values()) & set(added.values()) - {0}
    if not sizes:
        return {}
    origins: dict[bytes, list[str]] = {}
    for path, digest in _digests(before, [path for path, size in removed.items() if size in sizes]):
        origins.setdefault(digest, []).append(path)
    found = {}
    for path, digest in _digests(after, [path for path, size in added.items() if size in sizes]):
        if origins.get(digest):
            found[path] = origins[digest].pop(0)
    return found


def _digests(revision: Revision, paths: list[str]) -> Iterable[tuple[str, bytes]]:
    wanted = set(paths)
    rows = revision.files.order_by("path")
    # SQLite limits the number of parameters, and a revision may have more files.
    rows = rows.filter(path__in=paths) if len(paths) <= 500 else rows
    for path, content in rows.values_list("path", "content").iterator(chunk_size=50):
        if path in wanted:
            yield path, hashlib.sha256(content).digest()
