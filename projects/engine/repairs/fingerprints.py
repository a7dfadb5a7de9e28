"""When two build failures count as the same: equal code, file and message, without what varies between builds.

What the code controls is kept: names of modules, types, symbols and files. What changes for other reasons is removed:
line numbers, folders above the project, hashes, times, numbers, long quoted texts.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PATH = re.compile(r"(?:file://)?(?:[A-Za-z]:)?(?:[\w.@~+-]*/)*[\w.@~+-]+\.[A-Za-z]{1,6}\b")
_PLACE = re.compile(r"(?<=[\w\]])(?:\(\d+[,:]\d+\)|:\d+(?::\d+)?)|,? ?\bline \d+(?:,? col(?:umn)? \d+)?", re.IGNORECASE)
_PROJECT = re.compile(r"^(?:file://)?(?:[A-Za-z]:)?/(?:workspace/app|app|workspace|src|home/[^/]+/[^/]+|tmp/[^/]+)/")
_HASH = re.compile(
    r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,}\b|\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.I
)
# Bundlers put a hash between a name and its suffix.
_NAME_HASH = re.compile(r"(?<=[-.])(?=[\w-]*\d)[A-Za-z0-9_-]{8}(?=\.(?:js|css|mjs|map)\b)")
_QUOTED = re.compile(r"'([^'\n]*)'|\"([^\"\n]*)\"|`([^`\n]*)`|\u2018([^\u2019\n]*)\u2019")
# Not the numbers of a requested version: `left-pad@^1.3.0` and `left-pad@^1.4.0` are different failures.
_NUMBER = re.compile(
    r"(?<![A-Za-z@^~.\d])(?<![=<>~!]=)"
    r"\d+(?:[.,]\d+)*(?:\s?(?:ms|s|sec|seconds|kB|KB|MB|KiB|MiB|bytes))?(?![A-Za-z])"
)
# How tools begin an error line, or what follows the place in it. All other lines of evidence belong to such a line:
# code, carets, frames, the command.
_ERROR = re.compile(
    r"^\W*(?:\[[\w:@/-]+\]:? )?(?:"
    r"(?:uncaught )?[\w.$]*(?:error|exception)\b(?: \[\w+\])?:"
    r"|TS\d+:|module (?:not found|parse failed):|(?:cannot|can't|could not|missing) )"
    r"|\berror(?: [A-Z]+-?\(?\d+\)?)?: |^\d+ error \"|\[error\]",
    re.IGNORECASE,
)
MAX_QUOTED_CHARS = 60
MAX_MESSAGE_CHARS = 200
MAX_LINE_CHARS = 400  # as much as a verdict's evidence has


@dataclass(frozen=True)
class Failure:
    """The parts of a verdict that repairs use. `cls` is its class; `evidence`: log lines, most relevant first."""

    cls: str
    code: str
    phase: str
    message: str
    evidence: tuple[str, ...]
    hint: str = ""
    retryable: bool = False

    @classmethod
    def from_json(cls, verdict: Mapping[str, Any]) -> "Failure":
        """From a verdict in the API's form."""
        return cls(
            cls=str(verdict["class"]),
            code=str(verdict["code"]),
            phase=str(verdict.get("phase") or ""),
            message=str(verdict.get("message") or ""),
            evidence=tuple(map(str, verdict.get("evidence") or ())),
            hint=str(verdict.get("hint") or ""),
            retryable=bool(verdict.get("retryable")),
        )

    def as_text(self) -> str:
        """The failure as the model reads it."""
        return "\n".join((f"{self.code} in phase {self.phase}: {self.message}", self.hint, *self.evidence))


def fingerprint(failure: Failure) -> str:
    """What distinguishes this failure from others: code, file and normalised message."""
    first = failure.evidence[0] if failure.evidence else failure.message
    mark = _mark(failure.code, first)
    if _PATH.search(first):
        return mark
    # Many tools name the file in a line of its own.
    place = next((line for line in failure.evidence if _PATH.search(line) and _PLACE.search(line)), "")
    return f"{mark}|{_file_in(place)}"


def distinct_errors(failure: Failure) -> frozenset[str]:
    """The distinct errors in the evidence. A package manager stops at its first, however much it prints."""
    lines = [] if failure.phase == "installation" else [line for line in failure.evidence if _ERROR.search(line)]
    return frozenset(_mark(failure.code, line) for line in lines) or frozenset({fingerprint(failure)})


def _mark(code: str, line: str) -> str:
    line = line[:MAX_LINE_CHARS]
    return f"{code}|{_file_in(line)}|{normalised(line)}"


def _file_in(line: str) -> str:
    """The first file that a line names, if it names one."""
    found = _PATH.search(line)
    return _file(found[0]) if found else ""


def _file(path: str) -> str:
    """The path within the project, as far as it can be determined."""
    return _NAME_HASH.sub("#", _PROJECT.sub("", path).removeprefix("./"))


def normalised(line: str) -> str:
    """A log line without what varies."""
    text = _QUOTED.sub(_without_variable, line)
    text = _PLACE.sub("", text)
    text = _PATH.sub(lambda match: _file(match[0]), text)
    text = _HASH.sub("#", text)
    text = _NUMBER.sub("#", text)
    return " ".join(text.split())[:MAX_MESSAGE_CHARS].lower()


def _without_variable(match: re.Match[str]) -> str:
    """Short names are kept; sentences, long texts and anything with a hash or a time are removed."""
    text = next(group for group in match.groups() if group is not None)
    if len(text) > MAX_QUOTED_CHARS or (" " in text and re.search(r"\d", text)):
        return "'…'"
    return f"'{text}'"
