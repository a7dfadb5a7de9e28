"""Selects the files to show the model when a project is too large to show whole."""

from collections.abc import Sequence

from projects.engine.limits import Files
from projects.engine.model.questions import Part

MAX_SHOWN_CHARS = 240_000
# A text file this large is data or was generated.
MAX_FILE_CHARS = 60_000
_MANIFESTS = ("package.json", "pyproject.toml", "requirements.txt", "tsconfig.json", "vite.config.ts", "vite.config.js")
_LOCK_FILES = (".lock", ".lockb", "-lock.json", "-lock.yaml", "npm-shrinkwrap.json")  # how their names end


def named_in(text: str, files: Files) -> list[str]:
    """Files that a text mentions, in order; a bare file name counts when only one file has it."""
    names = [path.rpartition("/")[2] for path in files]
    places: dict[str, int] = {}
    for path, name in zip(files, names, strict=True):
        found = text.find(path)
        if found < 0 and names.count(name) == 1:
            found = text.find(name)
        if found >= 0:
            places[path] = found
    return sorted(places, key=lambda path: places[path])


def file_parts(files: Files, first: Sequence[str], *, most: int = MAX_SHOWN_CHARS) -> list[Part]:
    """The list of all paths, and as many files as fit: mentioned files, then manifests, then small before large.

    If the model accepts less than expected, only the mentioned files stay.
    """
    order = [*first, *_MANIFESTS, *sorted(files, key=lambda path: (len(files[path]), path))]
    parts = [Part("paths of all files", "\n".join(sorted(files)))]
    left = most
    for path in dict.fromkeys(order):
        text = _text(files, path)
        if text is None or len(text) > left:
            continue
        left -= len(text)
        parts.append(Part(f"file {path}", text, shorter=None if path in first else ""))
    return parts


def _text(files: Files, path: str) -> str | None:
    if path not in files or path.endswith(_LOCK_FILES) or len(files[path]) > 4 * MAX_FILE_CHARS:
        return None
    try:
        text = files[path].decode()
    except UnicodeDecodeError:
        return None
    return None if len(text) > MAX_FILE_CHARS or "\0" in text else text
