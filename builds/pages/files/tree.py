"""Files as a folder tree: the sources of a revision, the outputs of a build. Pure functions of paths and sizes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

# With at most so many files, all folders are shown open.
FEW = 30


@dataclass(frozen=True)
class File:
    """`name` is the last part of the path; `size` is in bytes."""

    name: str
    path: str
    size: int


@dataclass
class Folder:
    """`count` and `size` (bytes) cover all files below it, at any depth."""

    name: str = ""
    path: str = ""
    count: int = 0
    size: int = 0
    _folders: dict[str, "Folder"] = field(default_factory=dict)
    _files: list[File] = field(default_factory=list)

    @property
    def folders(self) -> list["Folder"]:
        return sorted(self._folders.values(), key=lambda folder: folder.name.lower())

    @property
    def files(self) -> list[File]:
        return sorted(self._files, key=lambda file: file.name.lower())

    def add(self, path: str, size: int) -> None:
        *parts, name = path.split("/")
        at = self
        at._count(size)
        for part in parts:
            at = at._folders.setdefault(part, Folder(part, f"{at.path}/{part}" if at.path else part))
            at._count(size)
        at._files.append(File(name, path, size))

    def at(self, path: str) -> "Folder | None":
        """The folder at a path relative to this one; None if there is none. "" is this folder itself."""
        at: Folder | None = self
        for part in path.split("/") if path else ():
            at = at._folders.get(part) if at else None
        return at

    def _count(self, size: int) -> None:
        self.count += 1
        self.size += size


def tree_of(files: Iterable[tuple[str, int]]) -> Folder:
    """The root folder of all (path, size) pairs."""
    root = Folder()
    for path, size in files:
        root.add(path, size)
    return root


@dataclass(frozen=True)
class Row:
    """The start or end of a folder, or a file."""

    kind: Literal["open", "close", "file"]
    it: File | Folder
    is_open: bool = False


def rows_of(root: Folder, *, current: str = "") -> list[Row]:
    """The tree in the order of the page, folders first. The folders around `current` are open."""
    rows: list[Row] = []
    _add_rows(root, rows, f"{current}/", all_open=root.count <= FEW)
    return rows


def _add_rows(folder: Folder, rows: list[Row], current: str, *, all_open: bool) -> None:
    for inner in folder.folders:
        rows.append(Row("open", inner, is_open=all_open or current.startswith(f"{inner.path}/")))
        _add_rows(inner, rows, current, all_open=all_open)
        rows.append(Row("close", inner))
    rows.extend(Row("file", file) for file in folder.files)


def crumbs_of(path: str) -> Sequence[tuple[str, str]]:
    """(name, path) of each folder on the way to a path, ending with the path itself."""
    parts = path.split("/") if path else []
    return [(part, "/".join(parts[: depth + 1])) for depth, part in enumerate(parts)]
