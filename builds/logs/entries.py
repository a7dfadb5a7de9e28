"""The entries of a build's log, read from a cursor on. All that reads logs, live or not, gets them from here."""

import re
from typing import Any, NamedTuple

from django.db.models import QuerySet

from builds.models import Build, LogChunk


class Cursor(NamedTuple):
    """How far a build's log has been read: up to which entry of which attempt. Clients have it as "attempt.sequence".

    The later of two cursors is the greater one.
    """

    attempt: int = 0
    sequence: int = 0

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """The cursor that a client sent back; BEGINNING for an empty text. Raises ValueError for anything else."""
        if not text:
            return BEGINNING
        if not re.fullmatch(CURSOR_PATTERN, text):
            raise ValueError("The cursor is not one that this log gave: use `nextCursor` as it came, or leave it out.")
        attempt, _, sequence = text.partition(".")
        return cls(int(attempt), int(sequence))

    def __str__(self) -> str:
        return f"{self.attempt}.{self.sequence}"

    def in_attempt(self, attempt: int) -> "Cursor":
        """The same cursor, or the attempt's beginning if it is of another one.

        What an attempt printed that lost its lease is not part of the build's log.
        """
        return self if self.attempt == attempt else Cursor(attempt)


BEGINNING = Cursor()
CURSOR_PATTERN = r"[0-9]{1,9}\.[0-9]{1,9}"


def chunks_of(build: Build) -> QuerySet[LogChunk]:
    """The stored entries of the build's current attempt, in order. They never change, and none comes in between."""
    return LogChunk.objects.filter(build=build, attempt=build.fence).order_by("sequence")


def read_entries(
    build: Build, *, after: Cursor = BEGINNING, phase: str = "", limit: int = 500
) -> tuple[list[LogChunk], Cursor]:
    """At most `limit` entries of the current attempt after a cursor, and the cursor to go on from."""
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
    """The API's LogEntry of a chunk: made by hand, because there are thousands of them."""
    return {
        "sequence": chunk.sequence,
        "attempt": chunk.attempt,
        "phase": chunk.phase,
        "stream": chunk.stream,
        "timestamp": chunk.timestamp,
        "text": chunk.text,
    }
