"""Safe relative paths and size limits: pure functions, the one gate that every source file passes.

A path is refused, never repaired: a repaired name is a file that the user did not ask for.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

MAX_PATH_BYTES = 240
MAX_DEPTH = 20

# Directional and zero-width characters make one name look like another (Unicode TR 36).
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
# Version control folders hold hooks that tools run by themselves.
_CONTROL_FOLDERS = {".git", ".hg", ".svn"}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with an upload: a stable code, the path, and what to do about it."""

    code: str
    path: str
    detail: str


def path_fault(path: str) -> str | None:
    """Why `path` cannot name a source file, as a sentence that says what to do; None when it can."""
    if not path:
        return "A file's path is empty: give each file a name."
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in path) or _INVISIBLE.search(path):
        return "The path holds control or invisible characters: use plain characters."
    if "\\" in path or re.match(r"[A-Za-z]:", path):
        return "Write the path with forward slashes and without a drive letter."
    if path.startswith("/"):
        return "The path is absolute: make it relative to the project's folder."
    parts = path.split("/")
    if ".." in parts:
        return "The path leaves the project's folder: remove the '..'."
    if "." in parts or "" in parts:
        return "The path has an empty or '.' part: write it in its shortest form."
    if len(path.encode()) > MAX_PATH_BYTES:
        return f"The path is longer than {MAX_PATH_BYTES} bytes: shorten it."
    if len(parts) > MAX_DEPTH:
        return f"The path is deeper than {MAX_DEPTH} levels: flatten the folders."
    if parts[0].lower() in _CONTROL_FOLDERS:
        return f"Files in {parts[0]} are version control's own: leave that folder out."
    return None


def upload_faults(sizes: Iterable[tuple[str, int]], *, max_files: int, max_file: int, max_total: int) -> list[Fault]:
    """All that is wrong with a set of (path, size in bytes) pairs, in the order given; [] when it can be kept."""
    faults: list[Fault] = []
    seen: dict[str, str] = {}
    count = total = 0
    for path, size in sizes:
        count, total = count + 1, total + size
        if reason := path_fault(path):
            faults.append(Fault("invalid_path", path, reason))
        elif size > max_file:
            detail = (
                f"The file has {size:,} bytes, more than the {max_file:,} allowed: make it smaller or leave it out."
            )
            faults.append(Fault("file_too_large", path, detail))
        # Two names that differ only in case, or in how an accent is coded, are one file on many machines.
        folded = unicodedata.normalize("NFC", path).casefold()
        if folded in seen:
            faults.append(Fault("duplicate_path", path, f"The path clashes with {seen[folded]!r}: rename one of them."))
        seen.setdefault(folded, path)
    faults += _folder_clashes(seen)
    if count > max_files:
        faults.append(Fault("too_many_files", "", f"{count:,} files, more than the {max_files:,} allowed."))
    if total > max_total:
        detail = f"The files have {total:,} bytes in all, more than the {max_total:,} allowed."
        faults.append(Fault("project_too_large", "", detail))
    return faults


def _folder_clashes(seen: dict[str, str]) -> list[Fault]:
    """A name cannot be a file and a folder at once."""
    faults = []
    for folded, path in seen.items():
        parts = folded.split("/")
        for depth in range(1, len(parts)):
            if (parent := "/".join(parts[:depth])) in seen:
                detail = f"{seen[parent]!r} is a file and cannot be a folder too: rename one of them."
                faults.append(Fault("duplicate_path", path, detail))
                break
    return faults
