"""Live readers of builds and generations: logs and events as resumable server-sent events.

A reader is a generator that follows the feed of its job. Each web process has a registry of the feeds in use, which
subscribes to changes and wakes them up. Knows nothing of HTTP: chef.web.streaming sends what a reader yields.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import NamedTuple, Protocol, TypeVar
from uuid import UUID

from django.conf import settings

from builds.live.feeds import BuildFeed, Feed, GenerationFeed, as_event
from builds.logs.entries import BEGINNING, CURSOR_PATTERN, Cursor
from chef.jobs.pubsub import subscribe

F = TypeVar("F", bound=Feed)
F_contra = TypeVar("F_contra", bound=Feed, contravariant=True)

RETRY = b"retry: 1000\n\n"  # clients reconnect after a second
PING = b": ping\n\n"
_ID_LINE = re.compile(rb"^id: .*\n", re.MULTILINE)  # data is JSON without line breaks


# --- Feeds -------------------------------------------------------------------------------------------------------


class FeedRegistry:
    """The feeds of one event loop, and the subscription that wakes them up."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.feeds: dict[UUID, Feed] = {}
        self._followers: dict[UUID, asyncio.Task[None]] = {}
        self._subscription: asyncio.Task[None] | None = None
        self._is_subscribed = False

    @contextlib.asynccontextmanager
    async def open(self, kind: type[F], job_id: UUID) -> AsyncIterator[F]:
        """The job's feed, followed for as long as it has readers."""
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
        if self._subscription is None:
            self._subscription = asyncio.create_task(subscribe(self._on_change, self._on_connection))
        self.feeds[feed.job_id] = feed
        self._followers[feed.job_id] = asyncio.create_task(feed.follow(lambda: self._is_subscribed))
        return feed

    def _on_change(self, job_id: UUID) -> None:
        if feed := self.feeds.get(job_id):
            feed.wake_up()

    def _on_connection(self, is_subscribed: bool) -> None:
        self._is_subscribed = is_subscribed
        for feed in self.feeds.values():
            feed.wake_up()


_registries: list[FeedRegistry] = []  # at most one: a web process has one event loop


def registry() -> FeedRegistry:
    if not _registries or _registries[0].loop is not asyncio.get_running_loop():
        _registries[:] = [FeedRegistry()]
    return _registries[0]


# --- Readers -----------------------------------------------------------------------------------------------------


class PagePosition(NamedTuple):
    """How much of a page's stream has been sent: the log up to a cursor, changes up to an event."""

    cursor: Cursor = BEGINNING
    event: int = 0

    @classmethod
    def parse(cls, text: str) -> "PagePosition":
        """The position in an event id from `page_stream`. Raises ValueError for any other id."""
        match = re.fullmatch(rf"({CURSOR_PATTERN})-([0-9]{{1,18}})", text)
        if not match:
            raise ValueError("This id is not from an event of this stream.")
        return cls(Cursor.parse(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.cursor}-{self.event}"


def log_stream(build_id: UUID, *, after: Cursor = BEGINNING, phase: str = "") -> AsyncGenerator[bytes]:
    """The log of the build's current attempt after a cursor, live; ends with an event `end`."""
    return _stream(BuildFeed, build_id, _LogReader(after, phase))


def page_stream(build_id: UUID, *, after: PagePosition = PagePosition()) -> AsyncGenerator[bytes]:  # noqa: B008
    """Log and changes together, for a page, after a position; ends with an event `end`.

    Each piece has an id that says how much of both has been sent, a PagePosition.
    """
    return _stream(BuildFeed, build_id, _PageReader(after))


def event_stream(build_id: UUID, *, after: int = 0) -> AsyncGenerator[bytes]:
    """Changes of the build's status and phase after an event's id, live; ends with an event `end`."""
    return _stream(BuildFeed, build_id, _EventReader(after))


def generation_stream(generation_id: UUID, *, after: int = 0) -> AsyncGenerator[bytes]:
    """A generation's changes of status, stage and files after an event's id, live; ends with an event `end`."""
    return _stream(GenerationFeed, generation_id, _EventReader(after))


class _Reader(Protocol[F_contra]):
    """One connection's position in a feed."""

    async def take(self, feed: F_contra) -> bytes:
        """What comes next, as one piece; empty if there is nothing for this reader."""

    def is_behind(self, feed: F_contra) -> bool:
        """Whether there may be more to take at once."""


class _LogReader:
    def __init__(self, cursor: Cursor, phase: str) -> None:
        self._cursor, self._phase = cursor, phase

    async def take(self, feed: BuildFeed) -> bytes:
        data, self._cursor = await feed.log_after(self._cursor, self._phase)
        return data

    def is_behind(self, feed: BuildFeed) -> bool:
        return (
            self._cursor < feed.newest
        )  # it skipped entries of other phases, or more were added while a page was read


class _EventReader:
    def __init__(self, event: int) -> None:
        self._event = event

    async def take(self, feed: Feed) -> bytes:
        data, self._event = feed.events_after(self._event)
        return data

    def is_behind(self, feed: Feed) -> bool:
        return False


class _PageReader:
    def __init__(self, position: PagePosition) -> None:
        self._position = position

    async def take(self, feed: BuildFeed) -> bytes:
        changes, event = feed.events_after(self._position.event)
        data, cursor = await feed.log_after(self._position.cursor, "")
        self._position = PagePosition(cursor, event)
        if not changes and not data:
            return b""
        # A client that was cut off within a piece gets it again, and drops duplicates by the entries' numbers.
        return _ID_LINE.sub(b"", data + changes) + f"id: {self._position}\n\n".encode()

    def is_behind(self, feed: BuildFeed) -> bool:
        return self._position.cursor < feed.newest


async def _stream(kind: type[F], job_id: UUID, reader: _Reader[F]) -> AsyncGenerator[bytes]:
    """What the reader takes from the job's feed, with pings while there is nothing, until the job ends."""
    yield RETRY
    async with registry().open(kind, job_id) as feed:
        ping_at = _ping_time()
        while True:
            if data := await reader.take(feed):
                yield data
                ping_at = _ping_time()
            elif reader.is_behind(feed):
                continue
            elif feed.is_finished:
                yield as_event("end", feed.end_document())
                return
            elif time.monotonic() >= ping_at:
                yield PING
                ping_at = _ping_time()
            else:
                await feed.next_read()


def _ping_time() -> float:
    # A feed polls at least three times between two pings: this is the last poll before the next ping is due.
    return time.monotonic() + settings.LIVE_PING_SECONDS * 2 / 3


async def generation_ended(generation_id: UUID, *, seconds: float) -> bool:
    """Wait until a generation has ended; False if it has not in that time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), registry().open(GenerationFeed, generation_id) as feed:
            while not feed.is_finished:
                await feed.next_read()
            return True
    return False
