"""A log by line, for pages: numbered from 1, as in the text from builds.logs.text.

A chunk may end within a line; the line belongs to the chunk in which it begins. The database counts the lines, so that
only the text that is shown is read.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from itertools import accumulate
from operator import or_
from typing import Any

from django.db.models import F, IntegerField, Q, Value
from django.db.models.functions import Length, Replace, Right

from builds.logs.entries import Cursor, chunks_of
from builds.logs.text import ByteLength
from builds.models import Build, LogChunk
from builds.verdicts.evidence import clean
from chef.text.ansi import PLAIN, Look, pieces, plain

_NEWLINES = Length("text", output_field=IntegerField()) - Length(Replace("text", Value("\n"), Value("")))
_CHUNKS_AT_ONCE = 20_000
_BATCH_CHARS = 512 * 1024
_UP_TO_LINE_END = re.compile(r"[^\n]*\n|[^\n]+")
_WORD = re.compile(r"[\w.@/:-]{3,}")


@dataclass(frozen=True)
class Line:
    """One line; `parts` are (text, look) from chef.text.ansi."""

    number: int
    phase: str
    stream: str
    timestamp: datetime
    parts: list[tuple[str, Look]]


class LogIndex:
    """The line at which each chunk of a build's current attempt begins: one query, however long the log is."""

    def __init__(self, build: Build) -> None:
        self.build = build
        rows = list(chunks_of(build).values_list("sequence", _NEWLINES, Right("text", 1)))
        self.sequences = [sequence for sequence, _, _ in rows]
        self._before = [0]  # line ends before each chunk, and in total
        for _, count, _ in rows:
            self._before.append(self._before[-1] + count)
        is_open = next((end for _, _, end in reversed(rows) if end), "\n") != "\n"
        self.last = self._before[-1] + is_open  # the number of the last line, which may be unfinished

    def before(self, sequence: int) -> int:
        """How many line ends precede a chunk."""
        return self._before[bisect_left(self.sequences, sequence)]

    def lines(self, first: int, last: int) -> list[Line]:
        """The lines from one number to another, as far as they exist."""
        # A line begins where the previous one ends: in the first chunk with so many line ends, or at its beginning.
        begin = max(bisect_left(self._before, first - 1) - 1, 0)
        end = min(bisect_left(self._before, last), len(self.sequences))
        if begin >= end:
            return []
        chunks = chunks_of(self.build).filter(sequence__range=(self.sequences[begin], self.sequences[end - 1]))
        return [line for line in _lines(chunks, self._before[begin] + 1) if first <= line.number <= last]


def _lines(chunks: Iterable[LogChunk], number: int) -> Iterator[Line]:
    line: Line | None = None
    look, source = PLAIN, ("", "")
    for chunk in chunks:
        if source != (chunk.phase, chunk.stream):  # a colour left on by one program must not affect the next
            look, source = PLAIN, (chunk.phase, chunk.stream)
        for text in _UP_TO_LINE_END.findall(chunk.text):
            line = line or Line(number, chunk.phase, chunk.stream, chunk.timestamp, [])
            line.parts.extend(pieces(text.removesuffix("\n"), look))
            look = line.parts[-1][1]
            if text.endswith("\n"):
                yield line
                line, number = None, number + 1
    if line:
        yield line


def find_evidence(build: Build, index: LogIndex) -> dict[str, int]:
    """The line number in the log of each line of the verdict's evidence that is found there: one query."""
    verdict = build.verdict or {}
    wanted = {line: word for line in verdict.get("evidence", []) if (word := _longest_word(line))}
    if not wanted:
        return {}
    rows = chunks_of(build).exclude(stream=LogChunk.Stream.SYSTEM)
    rows = rows.filter(reduce(or_, (Q(text__contains=word) for word in set(wanted.values()))))
    found: dict[str, int] = {}
    for batch in _batches(rows.values_list("sequence", "text").iterator(chunk_size=500)):
        for line in wanted.keys() - found.keys():
            if place := batch.place_of(line):
                sequence, line_ends = place
                found[line] = index.before(sequence) + line_ends + 1
        if len(found) == len(wanted):
            break
    return found


class _Batch:
    """Texts of some chunks, concatenated: searching a few long texts is faster than very many short ones."""

    def __init__(self, rows: list[tuple[int, str]]) -> None:
        self._sequences = [sequence for sequence, _ in rows]
        texts = [plain(text) for _, text in rows]
        self._text = "".join(texts)
        self._offsets = list(accumulate(map(len, texts), initial=0))

    def place_of(self, line: str) -> tuple[int, int] | None:
        """The chunk where the first line that a verdict quotes begins, and how many lines of the chunk precede it."""
        wanted = line.removesuffix("…")
        at = self._text.find(wanted)
        while at >= 0:
            begin, end = self._text.rfind("\n", 0, at) + 1, self._text.find("\n", at)
            if clean(self._text[begin : end if end >= 0 else None]) == line:
                chunk = bisect_right(self._offsets, begin) - 1
                return self._sequences[chunk], self._text.count("\n", self._offsets[chunk], begin)
            at = self._text.find(wanted, end) if end >= 0 else -1
        return None


def _batches(rows: Iterable[tuple[int, str]]) -> Iterator[_Batch]:
    batch, size = [], 0
    for row in rows:
        batch.append(row)
        size += len(row[1])
        if size > _BATCH_CHARS:
            yield _Batch(batch)
            batch, size = [], 0
    if batch:
        yield _Batch(batch)


def _longest_word(line: str) -> str:
    """A part of an evidence line that the database can search for: colour codes are rarely inside a word."""
    words = _WORD.findall(line.removesuffix("…"))
    return max(words, key=len, default="")


# --- For a page's script -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """Consecutive text of an attempt: `runs` are (characters, phase, stream, milliseconds since the epoch) of each
    chunk in it, `line` is the number of the line in which it begins, and `cursor` the next cursor."""

    attempt: int
    line: int
    text: str
    runs: list[tuple[int, str, str, int]]
    cursor: Cursor
    has_more: bool

    def as_json(self) -> dict[str, Any]:
        names = ("attempt", "line", "text", "runs")
        return {**{name: getattr(self, name) for name in names}, "cursor": str(self.cursor), "more": self.has_more}


def read_page(build: Build, *, after: Cursor, most_bytes: int, kept_bytes: int, kept_lines: int) -> Page:
    """The text after a cursor, up to `most_bytes`. Read from its beginning, a log longer than `kept_bytes` or
    `kept_lines` is cut to its last ones."""
    sequence = after.in_attempt(build.fence).sequence
    first, line = (sequence, 0) if sequence else _beginning(build, kept_bytes, kept_lines)
    texts: list[str] = []
    runs: list[tuple[int, str, str, int]] = []
    size, has_more = 0, False
    rows = chunks_of(build).filter(sequence__gt=first).values_list("sequence", "phase", "stream", "timestamp", "text")
    for number, phase, stream, timestamp, text in rows[:_CHUNKS_AT_ONCE].iterator(chunk_size=500):
        if size >= most_bytes:
            has_more = True
            break
        texts.append(text)
        runs.append((utf16_length(text), phase, stream, int(timestamp.timestamp() * 1000)))
        size, sequence = size + len(text.encode(errors="replace")), number
    has_more = has_more or len(runs) == _CHUNKS_AT_ONCE
    cursor = Cursor(build.fence, max(sequence, first))
    return Page(build.fence, line + 1, "".join(texts), runs, cursor, has_more)


def utf16_length(text: str) -> int:
    """The text's length in JavaScript, which counts UTF-16 code units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def _beginning(build: Build, kept_bytes: int, kept_lines: int) -> tuple[int, int]:
    """(the last sequence to skip, line ends up to it), so that at most these bytes and lines follow."""
    if build.log_bytes <= min(kept_bytes, kept_lines):  # a line has at least one byte
        return 0, 0
    rows = list(chunks_of(build).values_list("sequence", _NEWLINES, ByteLength(F("text"))))
    size = lines = 0
    for place in range(len(rows) - 1, -1, -1):
        lines, size = lines + rows[place][1], size + rows[place][2]
        if size > kept_bytes or lines > kept_lines:
            return rows[place][0], sum(row[1] for row in rows[: place + 1])
    return 0, 0
