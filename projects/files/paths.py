"""Safe relative paths and size limits: pure functions that check every source file.

An invalid path is refused, never repaired: a repaired name would be a file that the user did not send. Knows no
settings: the limits are passed in.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MAX_PATH_BYTES = 240
MAX_DEPTH = 20
MAX_NAME_BYTES = 255  # of one part of a path: the limit of most file systems
MAX_REPORTED = 100

# Directional and zero-width characters make one name look like another (Unicode TR 36).
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
# Version control folders hold hooks that tools run automatically, wherever in a project they are.
_CONTROL_FOLDERS = {".git", ".hg", ".svn"}


@dataclass(frozen=True)
class NewFile:
    """An incoming source file: path, bytes, and whether it is executable."""

    path: str
    content: bytes
    executable: bool = False


@dataclass(frozen=True)
class Fault:
    """One error in an upload: a stable code, the path, and what to do about it."""

    code: str
    path: str
    detail: str


def path_fault(path: str, *, max_bytes: int = MAX_PATH_BYTES, max_depth: int = MAX_DEPTH) -> str | None:
    """Why `path` is invalid, as a sentence that says what to do; None when it is valid."""
    if not path:
        return "A file's path is empty: give each file a name."
    # First, because the cost of all other checks grows with the path's length.
    if len(path.encode("utf-8", "surrogatepass")) > max_bytes:
        return f"The path is longer than {max_bytes} bytes: shorten it."
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in path) or _INVISIBLE.search(path):
        return "The path contains control or invisible characters: use plain characters."
    if "\\" in path or re.match(r"[A-Za-z]:", path):
        return "Write the path with forward slashes and without a drive letter."
    if path.startswith("/"):
        return "The path is absolute: make it relative to the project's folder."
    parts = path.split("/")
    if ".." in parts:
        return "The path leaves the project's folder: remove the '..'."
    if "." in parts or "" in parts:
        return "The path has an empty or '.' part: remove it."
    if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        return f"A name in the path is longer than {MAX_NAME_BYTES} bytes: shorten it."
    if len(parts) > max_depth:
        return f"The path is deeper than {max_depth} levels: flatten the folders."
    if folder := next((part for part in parts if part.lower() in _CONTROL_FOLDERS), None):
        return f"Files in {folder} belong to version control: leave that folder out."
    return None


def upload_faults(
    sizes: Iterable[tuple[str, int]],
    *,
    max_files: int,
    max_file: int,
    max_total: int,
    max_path_bytes: int = MAX_PATH_BYTES,
    max_depth: int = MAX_DEPTH,
) -> list[Fault]:
    """All errors in a set of (path, size in bytes) pairs, in the order given; [] when there are none.

    Files beyond the limit are only counted, so that millions of names cost little.
    """
    faults: list[Fault] = []
    seen: dict[str, str] = {}
    count = total = 0
    for path, size in sizes:
        count, total = count + 1, total + size
        if count > max_files:
            continue
        if reason := path_fault(path, max_bytes=max_path_bytes, max_depth=max_depth):
            faults.append(Fault("invalid_path", path, reason))
            continue
        if size > max_file:
            detail = (
                f"The file has {size:,} bytes, more than the {max_file:,} allowed: make it smaller or leave it out."
            )
            faults.append(Fault("file_too_large", path, detail))
        # Names that differ only in case, or in how an accent is encoded, are one file on many machines.
        folded = unicodedata.normalize("NFC", path).casefold()
        if folded in seen:
            faults.append(Fault("duplicate_path", path, f"The path clashes with {seen[folded]!r}: rename one of them."))
        seen.setdefault(folded, path)
    faults += _folder_clashes(seen)
    if count > max_files:
        faults.append(too_many_files(count, max_files))
    if total > max_total:
        detail = f"The files have {total:,} bytes in all, more than the {max_total:,} allowed: leave some out."
        faults.append(Fault("project_too_large", "", detail))
    return faults


def too_many_files(count: int, most: int) -> Fault:
    return Fault("too_many_files", "", f"{count:,} files, more than the {most:,} allowed: leave some out.")


def shortened(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    """A long list of errors in readable length: those of the upload as a whole first, and how many more there are."""
    if len(faults) <= MAX_REPORTED:
        return tuple(faults)
    ordered = sorted(faults, key=lambda fault: fault.path != "")
    detail = f"There are {len(faults) - MAX_REPORTED:,} more errors: fix these first."
    return (*ordered[:MAX_REPORTED], Fault("more_faults", "", detail))


def _folder_clashes(seen: dict[str, str]) -> list[Fault]:
    """The same name cannot be both a file and a folder."""
    faults = []
    for folded, path in seen.items():
        parts = folded.split("/")
        for depth in range(1, len(parts)):
            if (parent := "/".join(parts[:depth])) in seen:
                detail = f"{seen[parent]!r} is a file and cannot be a folder too: rename one of them."
                faults.append(Fault("duplicate_path", path, detail))
                break
    return faults
