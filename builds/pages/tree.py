"""A revision's files as a tree, told in the order in which a page writes it down."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

# Of so few files, all folders stand open.
FEW = 30


@dataclass(frozen=True)
class Row:
    """A folder's beginning or end, or a file: the name of its last part, its whole path, and its size in bytes."""

    kind: Literal["open", "close", "file"]
    name: str = ""
    path: str = ""
    size: int = 0
    is_open: bool = False


@dataclass
class _Folder:
    folders: dict[str, "_Folder"] = field(default_factory=dict)
    files: list[tuple[str, int]] = field(default_factory=list)


def tree_of(files: Iterable[tuple[str, int]], *, current: str = "") -> list[Row]:
    """Rows for (path, size) pairs: folders first, each in the order of names. Where `current` is stands open."""
    root, count = _Folder(), 0
    for path, size in files:
        *folders, name = path.split("/")
        at = root
        for part in folders:
            at = at.folders.setdefault(part, _Folder())
        at.files.append((name, size))
        count += 1
    rows: list[Row] = []
    _tell(root, "", rows, current, all_open=count <= FEW)
    return rows


def _tell(folder: _Folder, prefix: str, rows: list[Row], current: str, *, all_open: bool) -> None:
    for name, inner in sorted(folder.folders.items(), key=lambda item: item[0].lower()):
        path = f"{prefix}{name}/"
        rows.append(Row("open", name, path, is_open=all_open or current.startswith(path)))
        _tell(inner, path, rows, current, all_open=all_open)
        rows.append(Row("close"))
    for name, size in sorted(folder.files, key=lambda item: item[0].lower()):
        rows.append(Row("file", name, prefix + name, size))
