"""Output files as a tree of folders, and one folder of very many."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from builds.models import Artifact


@dataclass
class Folder:
    """`files` are (last part of the name, artifact); `count` and `size` are of all that is below it."""

    name: str
    path: str
    folders: list["Folder"] = field(default_factory=list)
    files: list[tuple[str, Artifact]] = field(default_factory=list)
    count: int = 0
    size: int = 0


def tree_of(artifacts: Iterable[Artifact]) -> Folder:
    """All of them below one folder without a name; folders with nothing in them but one folder are shown as one."""
    root = Folder("", "")
    known = {"": root}
    for artifact in sorted(artifacts, key=lambda one: one.name.split("/")):
        *parts, last = artifact.name.split("/")
        folder = root
        for depth, part in enumerate(parts, 1):
            _count(folder, artifact)
            path = "/".join(parts[:depth])
            if path not in known:
                known[path] = Folder(part, path)
                folder.folders.append(known[path])
            folder = known[path]
        _count(folder, artifact)
        folder.files.append((last, artifact))
    return root


def listing_of(artifacts: Iterable[Artifact], path: str) -> Folder:
    """One folder: its files, and the folders in it with how much is in each."""
    here = Folder(path.rpartition("/")[2], path)
    below: dict[str, Folder] = {}
    prefix = f"{path}/" if path else ""
    for artifact in artifacts:
        if not artifact.name.startswith(prefix):
            continue
        head, slash, _ = artifact.name.removeprefix(prefix).partition("/")
        if slash:
            _count(below.setdefault(head, Folder(head, prefix + head)), artifact)
        else:
            here.files.append((head, artifact))
        _count(here, artifact)
    here.folders = [below[name] for name in sorted(below)]
    here.files.sort(key=lambda one: one[0])
    return here


def crumbs_of(path: str) -> Sequence[tuple[str, str]]:
    """(name, path) of each folder on the way to a path, itself at the end."""
    parts = path.split("/") if path else []
    return [(part, "/".join(parts[: depth + 1])) for depth, part in enumerate(parts)]


def _count(folder: Folder, artifact: Artifact) -> None:
    folder.count += 1
    folder.size += artifact.size
