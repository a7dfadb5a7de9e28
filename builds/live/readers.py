"""Live readers of builds and generations: logs and events as server-sent events, resumable.

One listener in each web process hears which jobs have changed, and rings the feeds of those that are read. A
reader is a generator that follows its feed. Knows nothing of HTTP: chef.web.streaming sends what it yields.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar
from uuid import UUID

from django.conf import settings

from builds.live.feeds import BuildFeed, Feed, GenerationFeed, as_event
from chef.jobs.pubsub import subscribe

F = TypeVar("F", bound=Feed)

RETRY = b"retry: 1000\n\n"  # a reader that was cut off comes back after a second
PING = b": ping\n\n"
_ID = re.compile(rb"^id: .*\n", re.MULTILINE)  # data is JSON, which has no line breaks of its own
_PLACE = re.compile(r"(\d{1,9}\.\d{1,9})-(\d{1,18})", re.ASCII)


class Hub:
    """The feeds of one event loop, and the listener that rings them."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.feeds: dict[UUID, Feed] = {}
        self._followers: dict[UUID, asyncio.Task[None]] = {}
        self._listener: asyncio.Task[None] | None = None
        self._is_told = False

    @contextlib.asynccontextmanager
    async def reading(self, kind: type[F], job_id: UUID) -> AsyncIterator[F]:
        """The job's feed, followed for as long as anyone reads it."""
        feed = self.feeds.get(job_id) or self._follow(kind(job_id))
        assert isinstance(feed, kind)
        feed.readers += 1
        try:
            yield feed
        finally:
            feed.readers -= 1
            if not feed.readers:
                del self.feeds[job_id]
                self._followers.pop(job_id).cancel()

    def _follow(self, feed: F) -> F:
        if self._listener is None:
            self._listener = asyncio.create_task(subscribe(self._on_change, self._on_link))
        self.feeds[feed.job_id] = feed
        self._followers[feed.job_id] = asyncio.create_task(feed.follow(lambda: self._is_told))
        return feed

    def _on_change(self, job_id: UUID) -> None:
        if feed := self.feeds.get(job_id):
            feed.ring()

    def _on_link(self, is_told: bool) -> None:
        self._is_told = is_told
        for feed in self.feeds.values():
            feed.ring()


_hubs: list[Hub] = []  # of the one loop that a web process has


def hub() -> Hub:
    if not _hubs or _hubs[0].loop is not asyncio.get_running_loop():
        _hubs[:] = [Hub()]
    return _hubs[0]


async def log_stream(build_id: UUID, *, after: str = "", phase: str = "") -> AsyncGenerator[bytes]:
    """The log of the build's current attempt from a cursor of builds.logs.writer.read on, live; a last event `end`."""
    attempt, sequence = (int(part) for part in (after or "0.0").split("."))
    yield RETRY
    async with hub().reading(BuildFeed, build_id) as feed:
        quiet_until = _ping_time()
        while True:
            data = b""
            if feed.has_been_read:
                data, attempt, sequence = await feed.log_after(attempt, sequence, phase)
            if data:
                yield data
                quiet_until = _ping_time()
            elif (attempt, sequence) < (feed.attempt, feed.tip):
                continue  # past entries of other phases, or more came while a page was read
            elif feed.is_whole:
                yield _end(feed)
                return
            elif time.monotonic() >= quiet_until:
                yield PING
                quiet_until = _ping_time()
            else:
                await feed.look()


async def page_stream(build_id: UUID, *, after: str = "", event: int = 0) -> AsyncGenerator[bytes]:
    """Both at once, for a page: the log after a cursor, and the changes after an event; a last event `end`.

    Each has an id that says how much of both has been sent, as `place_in_page_stream` reads it.
    """
    attempt, sequence = (int(part) for part in (after or "0.0").split("."))
    yield RETRY
    async with hub().reading(BuildFeed, build_id) as feed:
        quiet_until = _ping_time()
        while True:
            changes, event = _changes_after(feed, event)
            data = b""
            if feed.has_been_read:
                data, attempt, sequence = await feed.log_after(attempt, sequence, "")
            place = b"id: %d.%d-%d" % (attempt, sequence, event)
            if changes or data:
                # Whoever is cut off within a piece gets that piece again: it knows by the entries' numbers.
                yield _ID.sub(b"", data + changes) + place + b"\n\n"
                quiet_until = _ping_time()
            elif (attempt, sequence) < (feed.attempt, feed.tip):
                continue
            elif feed.is_whole:
                yield _end(feed)
                return
            elif time.monotonic() >= quiet_until:
                yield PING
                quiet_until = _ping_time()
            else:
                await feed.look()


def place_in_page_stream(event_id: str) -> tuple[str, int]:
    """(cursor, event) of an id that `page_stream` gave. Raises ValueError for any other."""
    match = _PLACE.fullmatch(event_id)
    if not match:
        raise ValueError("This stream gave no event such an id.")
    return match[1], int(match[2])


def _changes_after(feed: Feed, event: int) -> tuple[bytes, int]:
    data = b"".join(data for number, data in feed.events if number > event)
    return data, feed.events[-1][0] if data else event


def event_stream(build_id: UUID, *, after: int = 0) -> AsyncGenerator[bytes]:
    """Changes of the build's status and phase, those after an event's id, live; a last event `end`."""
    return _event_stream(BuildFeed, build_id, after)


def generation_stream(generation_id: UUID, *, after: int = 0) -> AsyncGenerator[bytes]:
    """Changes of a generation's status and stage, and its files, after an event's id, live; a last event `end`."""
    return _event_stream(GenerationFeed, generation_id, after)


async def _event_stream(kind: type[Feed], job_id: UUID, after: int) -> AsyncGenerator[bytes]:
    yield RETRY
    async with hub().reading(kind, job_id) as feed:
        quiet_until = _ping_time()
        while True:
            data, after = _changes_after(feed, after)
            if data:
                yield data
                quiet_until = _ping_time()
            elif feed.is_whole:
                yield _end(feed)
                return
            elif time.monotonic() >= quiet_until:
                yield PING
                quiet_until = _ping_time()
            else:
                await feed.look()


def _ping_time() -> float:
    # A feed looks at least three times in the time between two pings: this is the last look before it is over.
    return time.monotonic() + settings.LIVE_PING_SECONDS * 2 / 3


def _end(feed: Feed) -> bytes:
    return as_event("end", feed.end_document())


async def generation_ended(generation_id: UUID, *, seconds: float) -> bool:
    """Wait until a generation has ended; False when it has not in that time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), hub().reading(GenerationFeed, generation_id) as feed:
            while not feed.is_whole:
                await feed.look()
            return True
    return False
