"""By what two failures of a build are the same one: code, file and message, without all that varies between builds.

What stays is what the code has to do with: names of modules, types, symbols and files. What goes is what a change
elsewhere moves: line numbers, folders before the project, hashes, times, numbers, long texts in quotes.
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
_NUMBER = re.compile(r"(?<![A-Za-z@\d])\d+(?:[.,]\d+)*(?:\s?(?:ms|s|sec|seconds|kB|KB|MB|KiB|MiB|bytes))?(?![A-Za-z])")
MAX_QUOTED_CHARS = 60
MAX_MESSAGE_CHARS = 200
MAX_LINE_CHARS = 400  # as long as a verdict's evidence is


@dataclass(frozen=True)
class Failure:
    """A verdict, as far as mending goes. `cls` is its class; `evidence` are log lines, the most telling first."""

    cls: str
    code: str
    phase: str
    message: str
    evidence: tuple[str, ...]
    hint: str = ""
    retryable: bool = False

    @classmethod
    def from_json(cls, verdict: Mapping[str, Any]) -> "Failure":
        """From a verdict as the API gives it."""
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
    """What tells this failure from others: code, file and normalised message."""
    first = failure.evidence[0] if failure.evidence else failure.message
    return _mark(failure.code, first)


def distinct_errors(failure: Failure) -> frozenset[str]:
    """The errors that the evidence shows, each once: the lines that say something of their own."""
    lines = [line for line in failure.evidence if _says_something(line)]
    return frozenset(_mark(failure.code, line) for line in lines) or frozenset({fingerprint(failure)})


def _says_something(line: str) -> bool:
    """Not the frame of a source line or a stack, and not a sum of the errors."""
    text = line.strip()
    return bool(re.search(r"[A-Za-z]{3}", text)) and not re.match(
        r"at .+[:)]|\d+ ?\||[|>^~]|found \d+ errors?|npm (?:err!|error) (?:code|errno|path|a complete log)",
        text,
        re.IGNORECASE,
    )


def _mark(code: str, line: str) -> str:
    line = line[:MAX_LINE_CHARS]
    found = _PATH.search(line)
    file = _file(found[0]) if found else ""
    return f"{code}|{file}|{normalised(line)}"


def _file(path: str) -> str:
    """The path within the project, as far as it can be known."""
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
    """A short name stays; a sentence, a long text and whatever holds a hash or a time goes."""
    text = next(group for group in match.groups() if group is not None)
    if len(text) > MAX_QUOTED_CHARS or (" " in text and re.search(r"\d", text)):
        return "'…'"
    return f"'{text}'"
