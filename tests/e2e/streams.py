"""A reader of server-sent events that knows only the format."""

import contextlib
import json
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from tests.installation import Installation

EVENTS = {"Accept": "text/event-stream"}


@dataclass(frozen=True)
class Event:
    """One event; `id` is empty if it has none."""

    id: str
    kind: str
    data: dict[str, Any]


def events_of(lines: Iterable[str]) -> Iterator[Event]:
    """Parse events from lines; comments and retry hints are skipped."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line and name:
            fields[name] = value
        elif not line:
            if "data" in fields:
                yield Event(fields.get("id", ""), fields["event"], json.loads(fields["data"]))
            fields = {}


@contextlib.contextmanager
def opened(chef: Installation, path: str, *, last_id: str = "", token: str | None = None) -> Iterator[httpx.Response]:
    """An open stream."""
    headers = EVENTS | ({"Last-Event-ID": last_id} if last_id else {})
    with chef.client(token) as client, client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        yield answer


def read(chef: Installation, path: str, *, last_id: str = "", most: int = 10**9) -> list[Event]:
    """All events until the stream ends; or `most` events, after which the connection is cut."""
    found: list[Event] = []
    with opened(chef, path, last_id=last_id) as answer:
        for event in events_of(answer.iter_lines()):
            found.append(event)
            if len(found) >= most:
                break
    return found


@dataclass
class Reader:
    """Reads a stream in its own thread; a context manager that waits for the end of the stream."""

    chef: Installation
    path: str
    events: list[Event] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.join(timeout=60)
        assert not self._thread.is_alive(), "the stream has not ended"

    def _read(self) -> None:
        with opened(self.chef, self.path) as answer:
            for event in events_of(answer.iter_lines()):
                self.events.append(event)

    def has_line(self, line: str) -> bool:
        return line in text_of(self.events)

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()


def text_of(events: Iterable[Event]) -> str:
    """The build's output, without system lines."""
    return "".join(e.data["text"] for e in events if e.kind == "log" and e.data["stream"] != "system")
