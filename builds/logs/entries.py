"""The entries of a build's log after a cursor. All readers of logs, live or not, use this."""

import re
from typing import Any, NamedTuple

from django.db.models import QuerySet

from builds.models import Build, LogChunk


class Cursor(NamedTuple):
    """How far a build's log has been read: up to which entry of which attempt. Sent to clients as "attempt.sequence".

    Cursors are ordered: a later one is greater.
    """

    attempt: int = 0
    sequence: int = 0

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """The cursor from a client; BEGINNING for an empty text. Raises ValueError if it is malformed."""
        if not text:
            return BEGINNING
        if not re.fullmatch(CURSOR_PATTERN, text):
            raise ValueError("The cursor is not from this log: use `nextCursor` unchanged, or leave it out.")
        attempt, _, sequence = text.partition(".")
        return cls(int(attempt), int(sequence))

    def __str__(self) -> str:
        return f"{self.attempt}.{self.sequence}"

    def in_attempt(self, attempt: int) -> "Cursor":
        """The same cursor, or the attempt's beginning if the cursor belongs to another attempt.

        Output of an attempt that lost its lease is not part of the build's log.
        """
        return self if self.attempt == attempt else Cursor(attempt)


BEGINNING = Cursor()
CURSOR_PATTERN = r"[0-9]{1,9}\.[0-9]{1,9}"


def chunks_of(build: Build) -> QuerySet[LogChunk]:
    """The stored entries of the build's current attempt, in order. They never change, and are only appended to."""
    return LogChunk.objects.filter(build=build, attempt=build.fence).order_by("sequence")


def read_entries(
    build: Build, *, after: Cursor = BEGINNING, phase: str = "", limit: int = 500
) -> tuple[list[LogChunk], Cursor]:
    """At most `limit` entries of the current attempt after a cursor, and the next cursor."""
    start = after.in_attempt(build.fence)
    rows = chunks_of(build).filter(sequence__gt=start.sequence)
    if phase:
        rows = rows.filter(phase=phase)
    chunks = list(rows[:limit])
    return chunks, cursor_of(chunks[-1]) if chunks else start


def cursor_of(chunk: LogChunk) -> Cursor:
    """The cursor of a reader that has read up to this entry."""
    return Cursor(chunk.attempt, chunk.sequence)


def entry_document(chunk: LogChunk) -> dict[str, Any]:
    """The API's LogEntry of a chunk. Without a serializer, because there are thousands of them."""
    return {
        "sequence": chunk.sequence,
        "attempt": chunk.attempt,
        "phase": chunk.phase,
        "stream": chunk.stream,
        "timestamp": chunk.timestamp,
        "text": chunk.text,
    }
