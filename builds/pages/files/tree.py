"""Files as a tree of folders: the sources of a revision, the outputs of a build. Pure functions of paths and sizes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

# Of so few files, all folders stand open.
FEW = 30


@dataclass(frozen=True)
class File:
    """`name` is the last part of its path; `size` is in bytes."""

    name: str
    path: str
    size: int


@dataclass
class Folder:
    """`count` and `size`, in bytes, are of all files below it, in other folders too."""

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
        """The folder of that path below this one, which is at the path ""."""
        at: Folder | None = self
        for part in path.split("/") if path else ():
            at = at._folders.get(part) if at else None
        return at

    def _count(self, size: int) -> None:
        self.count += 1
        self.size += size


def tree_of(files: Iterable[tuple[str, int]]) -> Folder:
    """The folder that holds all (path, size) pairs."""
    root = Folder()
    for path, size in files:
        root.add(path, size)
    return root


@dataclass(frozen=True)
class Row:
    """A folder's beginning or end, or a file."""

    kind: Literal["open", "close", "file"]
    it: File | Folder
    is_open: bool = False


def rows_of(root: Folder, *, current: str = "") -> list[Row]:
    """The tree in the order in which a page writes it down: folders first. The one that `current` is in stands open."""
    rows: list[Row] = []
    _tell(root, rows, f"{current}/", all_open=root.count <= FEW)
    return rows


def _tell(folder: Folder, rows: list[Row], current: str, *, all_open: bool) -> None:
    for inner in folder.folders:
        rows.append(Row("open", inner, is_open=all_open or current.startswith(f"{inner.path}/")))
        _tell(inner, rows, current, all_open=all_open)
        rows.append(Row("close", inner))
    rows.extend(Row("file", file) for file in folder.files)


def crumbs_of(path: str) -> Sequence[tuple[str, str]]:
    """(name, path) of each folder on the way to a path, itself at the end."""
    parts = path.split("/") if path else []
    return [(part, "/".join(parts[: depth + 1])) for depth, part in enumerate(parts)]
