"""Changes to files that are there: search and replace, new files, deleted files; and the diff that shows them.

A patch applies as a whole or not at all: each search text must occur exactly once in its file. Pure functions over
paths and bytes.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from projects.engine.errors import EngineError
from projects.engine.limits import Files, Limits
from projects.engine.model.questions import Document
from projects.engine.stages.file_checks import content_faults
from projects.engine.stages.manifests import changed_manifest_faults, with_new_imports
from projects.engine.stages.tests import TextFile

MAX_CHANGES = 500
_CONTEXT = 3  # lines of context around each change, as in other diffs
_HUNK = re.compile(r"@@ -(\d+)((?:,\d+)?) \+(\d+)((?:,\d+)?) @@$")


class Replacement(Document):
    """`search` is copied from the file, with enough context to occur only once; empty for an empty file."""

    path: str
    search: str
    replace: str


class Patch(Document):
    """`summary` explains to the user what was changed and why. Replacements in one file apply in order."""

    summary: str
    replacements: list[Replacement]
    new_files: list[TextFile]
    deleted: list[str]


@dataclass(frozen=True)
class Patched:
    """All files after a change, the unified diff, and the patch's summary."""

    files: Mapping[str, bytes]
    diff: str
    summary: str


def apply(files: Files, patch: Patch, limits: Limits) -> Patched:
    """The files with the patch applied. Raises EngineError `patch_failed`, changing nothing, when it does not apply."""
    after, faults = _attempt(files, patch, limits)
    if faults:
        raise EngineError("patch_failed", " ".join(faults))
    limits.check(after)
    return Patched(after, unified_diff(files, after), patch.summary)


def patch_faults(files: Files, patch: Patch, limits: Limits) -> list[str]:
    """Why a patch does not apply, as sentences for the model; [] when it does."""
    return _attempt(files, patch, limits)[1]


def _attempt(files: Files, patch: Patch, limits: Limits) -> tuple[dict[str, bytes], list[str]]:
    if len(patch.replacements) + len(patch.new_files) + len(patch.deleted) > MAX_CHANGES:
        return dict(files), [f"The patch has more than {MAX_CHANGES} changes: change less at once."]
    after = dict(files)
    faults = [
        *_replace(after, patch.replacements, limits),
        *_add(after, patch.new_files, limits),
        *_delete(after, patch),
    ]
    if not faults:
        after = with_new_imports(files, after)
        faults = changed_manifest_faults(files, after)
        faults += [f"{fault.path[:100] or 'files'}: {fault.detail}" for fault in limits.faults(_sizes(after))]
    if not faults and after == dict(files):
        faults = ["The patch changes nothing."]
    if not faults and not after:
        faults = ["The patch deletes every file."]
    return after, faults


def _sizes(files: Files) -> Iterator[tuple[str, int]]:
    return ((path, len(content)) for path, content in files.items())


def _replace(after: dict[str, bytes], replacements: list[Replacement], limits: Limits) -> list[str]:
    faults = []
    changed: dict[str, str] = {}
    for number, each in enumerate(replacements, 1):
        try:
            text = changed[each.path] if each.path in changed else _text(after, each.path)
            changed[each.path] = _replaced(text, each)
        except ValueError as fault:
            faults.append(f"Replacement {number} in {each.path[:100]}: {fault}")
    for path, text in changed.items():
        if not faults:
            faults += content_faults(path, text, limits)
        after[path] = text.encode(errors="replace")
    return faults


def _text(files: Files, path: str) -> str:
    if path not in files:
        raise ValueError("there is no such file; put new files under new_files.")
    try:
        return files[path].decode()
    except UnicodeDecodeError:
        raise ValueError("the file is not text and cannot be changed.") from None


def _replaced(text: str, each: Replacement) -> str:
    if not each.search.strip():
        if not text.strip():
            return each.replace  # there is nothing to copy
        raise ValueError("the search text is empty: copy the lines to change.")
    search, replace = each.search, each.replace
    if "\r\n" in text and "\r\n" not in search:
        # Models write \n as the line ending, whatever the file uses.
        search, replace = (part.replace("\r\n", "\n").replace("\n", "\r\n") for part in (search, replace))
    count = text.count(search)
    if count == 1 and text.find(search, text.find(search) + 1) >= 0:
        count = 2  # it overlaps with itself
    if count != 1:
        first = each.search.strip().splitlines()[0][:80]
        problem = "is not in the file" if not count else f"occurs {count} times, so add lines around it"
        raise ValueError(f"the search text that begins {first!r} {problem}; it must occur exactly once.")
    return text.replace(search, replace)


def _add(after: dict[str, bytes], new_files: list[TextFile], limits: Limits) -> list[str]:
    faults = []
    for file in new_files:
        if after.get(file.path, b"").strip():
            faults.append(f"{file.path[:100]}: the file exists already; change it with replacements.")
        faults += content_faults(file.path, file.content, limits)
        after[file.path] = file.content.encode(errors="replace")
    return faults


def _delete(after: dict[str, bytes], patch: Patch) -> list[str]:
    touched = {each.path for each in patch.replacements} | {file.path for file in patch.new_files}
    faults = []
    for path in patch.deleted:
        if path in touched:
            faults.append(f"{path[:100]}: the file is both changed and deleted.")
        elif after.pop(path, None) is None:
            faults.append(f"{path[:100]}: there is no such file to delete.")
    return faults


# --- The diff --------------------------------------------------------------------------------------------------------


def unified_diff(before: Files, after: Files) -> str:
    """A unified diff that `git apply` accepts; binary files are only named."""
    paths = sorted(before.keys() | after.keys())
    return "".join(
        _file_diff(path, before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)
    )


def _file_diff(path: str, before: bytes | None, after: bytes | None) -> str:
    head = f"diff --git a/{path} b/{path}\n"
    head += "new file mode 100644\n" if before is None else "deleted file mode 100644\n" if after is None else ""
    try:
        old, new = ((content or b"").decode() for content in (before, after))
    except UnicodeDecodeError:
        return f"{head}Binary files a/{path} and b/{path} differ\n"
    # Only at "\n": other characters that Python treats as line ends are part of the line in every other tool.
    lines = [text.split("\n") for text in (old, new)]
    parts = [[f"{line}\n" for line in each[:-1]] + ([each[-1]] if each[-1] else []) for each in lines]
    from_name = "/dev/null" if before is None else f"a/{path}"
    to_name = "/dev/null" if after is None else f"b/{path}"
    same = _same_before(parts[0], parts[1])
    hunks = difflib.unified_diff(parts[0][same:], parts[1][same:], from_name, to_name)
    return head + "".join(_whole(_moved(line, same)) for line in hunks)


def _same_before(old: list[str], new: list[str]) -> int:
    """Where the first hunk's context begins. Removes the equal end of both: comparing equal text is slow."""
    shortest = min(len(old), len(new))
    first = next((at for at in range(shortest) if old[at] != new[at]), shortest)
    last = next((at for at in range(shortest - first) if old[-1 - at] != new[-1 - at]), shortest - first)
    if (beyond := last - _CONTEXT) > 0:
        del old[-beyond:], new[-beyond:]
    return max(first - _CONTEXT, 0)


def _moved(line: str, by: int) -> str:
    """A hunk's head with the lines counted from the file's beginning."""
    head = _HUNK.match(line)
    return f"@@ -{int(head[1]) + by}{head[2]} +{int(head[3]) + by}{head[4]} @@\n" if head else line


def _whole(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
