"""Feeds: what is new about a build or generation, read once for all of its live readers, and kept for a while.

A feed follows one job while it has readers. Readers that keep up share the bytes of a bounded window; one that falls
behind the window reads its own pages from the database. Knows nothing of HTTP or users.
"""

import asyncio
import logging
import random
import time
from bisect import bisect_right
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import orjson
from django.conf import settings
from django.db import connection
from django.db.models import Max

from builds.logs.entries import Cursor, chunks_of, cursor_of, entry_document, read_entries
from builds.models import Build, BuildEvent, LogChunk
from chef.jobs.models import Status
from projects.api.documents import wire_status
from projects.models import Generation, GenerationEvent

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

WINDOW_BYTES = 1024**2
SEND_BYTES = 64 * 1024  # most given to a reader at once, unless one entry is larger
PAGE_ROWS = 200
# How often a feed polls: without a subscription, and with one, in case a message was lost.
POLL_SECONDS = 1.0
SUBSCRIBED_POLL_SECONDS = 5.0
# Readers are woken a few at a time with a pause, so that ordinary requests get a turn.
READERS_AT_ONCE = 7
PAUSE_SECONDS = 0.002
NOTHING_READ = Cursor(-1)

# A small separate pool: readers must not use up the threads of ordinary requests, or the pool of connections.
_threads = ThreadPoolExecutor(max_workers=3, thread_name_prefix="live")
# One thread for queries that many readers may need at the same moment, so that ordinary requests get a turn.
_queue = ThreadPoolExecutor(max_workers=1, thread_name_prefix="live-queue")


async def in_database(read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function that reads the database in a thread, and release the thread's connection."""
    return await asyncio.get_running_loop().run_in_executor(_threads, _with_own_connection, read, args, kwargs)


async def queued_in_database(read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like `in_database`, but one call at a time, with a pause after each."""

    def run() -> T:
        result = _with_own_connection(read, args, kwargs)
        time.sleep(PAUSE_SECONDS)
        return result

    return await asyncio.get_running_loop().run_in_executor(_queue, run)


def _with_own_connection(read: Callable[..., T], args: Any, kwargs: Any) -> T:
    try:
        return read(*args, **kwargs)
    finally:
        connection.close()


# --- Server-sent events ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EncodedEntry:
    """One log entry as an event."""

    sequence: int
    phase: str
    data: bytes


def as_event(kind: str, document: Any, *, event_id: object = "") -> bytes:
    """A server-sent event. JSON contains no line breaks, so it is one line of data."""
    head = f"id: {event_id}\nevent: {kind}\n" if event_id else f"event: {kind}\n"
    return head.encode() + b"data: " + orjson.dumps(document, option=orjson.OPT_UTC_Z) + b"\n\n"


def _log_event(chunk: LogChunk) -> EncodedEntry:
    data = as_event("log", entry_document(chunk), event_id=cursor_of(chunk))
    return EncodedEntry(chunk.sequence, chunk.phase, data)


def _build_event(event: BuildEvent, build: Build) -> bytes:
    """The state at the time of the event, so that it is the same whenever it is read."""
    ended = event.to_status in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)
    # Nothing changes after the end; before it, a change of status also starts the phases again.
    phase, progress = (build.phase, build.progress) if ended else (event.data.get("phase"), event.data.get("progress"))
    document = {
        "jobId": build.pk,
        "status": event.to_status or Status.RUNNING,
        "phase": phase or None,
        "progress": progress or 0,
        "attempt": event.fence,
        "timestamp": event.created_at,
    }
    if ended:
        document["verdict"] = event.data.get("verdict")
    return as_event(event.kind, document, event_id=event.pk)


# --- Reading -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """What is new about a build. `is_all`: there was no more to read at that moment."""

    status: str
    start: Cursor  # the entries are all entries of the attempt after this cursor
    entries: list[EncodedEntry]
    events: list[tuple[int, bytes]]
    is_all: bool


def read_change(build_id: UUID, after: Cursor, event: int) -> Change | None:
    """What came after a cursor and an event; the end of the log for NOTHING_READ. None: the build does not exist.

    The build is read first: if it had ended by then, nothing can have been added since.
    """
    build = Build.objects.only("status", "fence", "phase", "progress").filter(pk=build_id).first()
    if build is None:
        return None
    start = after.in_attempt(build.fence)
    if after == NOTHING_READ:
        last = chunks_of(build).aggregate(last=Max("sequence"))["last"] or 0
        start = Cursor(build.fence, max(last - PAGE_ROWS, 0))
    chunks, _ = read_entries(build, after=start, limit=PAGE_ROWS)
    rows = BuildEvent.objects.filter(build=build, pk__gt=event).order_by("pk")[:PAGE_ROWS]
    events = [(row.pk, _build_event(row, build)) for row in rows]
    is_all = len(chunks) < PAGE_ROWS and len(events) < PAGE_ROWS
    return Change(build.status, start, [_log_event(chunk) for chunk in chunks], events, is_all)


def read_page(build_id: UUID, after: Cursor, phase: str) -> tuple[list[EncodedEntry], bool]:
    """Entries after the cursor in its attempt, of bounded size, and whether those are all for now."""
    build = Build(pk=build_id, fence=after.attempt)
    chunks, _ = read_entries(build, after=after, phase=phase, limit=PAGE_ROWS)
    page: list[EncodedEntry] = []
    size = 0
    for chunk in chunks:
        page.append(_log_event(chunk))
        size += len(page[-1].data)
        if size > SEND_BYTES:
            break
    return page, len(page) == len(chunks) < PAGE_ROWS


class Feed:
    """Follows one job while it has readers. All methods belong to one event loop."""

    def __init__(self, job_id: UUID) -> None:
        self.job_id = job_id
        self.status = ""
        self.events: list[tuple[int, bytes]] = []  # (id, encoded event)
        self.is_finished = False  # the job has ended, and everything has been read
        self.readers = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._woken = asyncio.Event()

    async def read(self) -> bool:
        """Read what is new. Returns whether that was all at that moment."""
        raise NotImplementedError

    def end_document(self) -> dict[str, Any]:
        """The data of the event `end`, the last one of each stream."""
        raise NotImplementedError

    @property
    def last_event(self) -> int:
        return self.events[-1][0] if self.events else 0

    # --- For the registry ----------------------------------------------------------------------------------------

    def wake_up(self) -> None:
        """The job may have changed: read it now."""
        self._woken.set()

    async def follow(self, is_subscribed: Callable[[], bool]) -> None:
        """Read each change and wake the readers, until the job has ended. `is_subscribed`: whether changes currently
        arrive from Redis."""
        while not self.is_finished:
            self._woken.clear()
            try:
                is_all = await self.read()
            except Exception:  # of any kind: the next read may succeed, and readers must not hang forever
                logger.warning("cannot read %s for its live readers", self.job_id, exc_info=True)
                await asyncio.sleep(POLL_SECONDS)
                continue
            await self._wake_readers()
            if is_all:
                seconds = SUBSCRIBED_POLL_SECONDS if is_subscribed() else POLL_SECONDS
                seconds = min(seconds, settings.LIVE_PING_SECONDS / 3)
                await self._until_woken(seconds * random.uniform(0.7, 1))  # noqa: S311 -- feeds must not poll in step

    async def _until_woken(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass  # then it polls

    async def _wake_readers(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for number, reader in enumerate(waiting, 1):
            if not reader.done():
                reader.set_result(None)
            if not number % READERS_AT_ONCE:
                await asyncio.sleep(PAUSE_SECONDS)

    # --- For readers ---------------------------------------------------------------------------------------------

    async def next_read(self) -> None:
        """Wait for the next read: at a change, or by polling, a few times in LIVE_PING_SECONDS."""
        reader = asyncio.get_running_loop().create_future()
        self._waiting.add(reader)
        try:
            await reader
        finally:
            self._waiting.discard(reader)

    def events_after(self, event: int) -> tuple[bytes, int]:
        """The encoded events after an event's id, and the last one's id."""
        data = b"".join(data for number, data in self.events if number > event)
        return data, self.last_event if data else event


class BuildFeed(Feed):
    """A build's log and events."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__(job_id)
        self.newest = NOTHING_READ  # the newest stored entry of the attempt
        self._window: list[EncodedEntry] = []
        self._window_start = 0  # the window holds every entry of the attempt after this cursor
        self._window_size = 0
        self._pieces: dict[tuple[int, str], tuple[bytes, Cursor]] = {}

    async def read(self) -> bool:
        change = await in_database(read_change, self.job_id, self.newest, self.last_event)
        self._apply(change)
        return change is None or change.is_all

    def end_document(self) -> dict[str, Any]:
        return {"jobId": self.job_id, "status": self.status}

    def _apply(self, change: Change | None) -> None:
        self._pieces.clear()
        if change is None:  # deleted
            self.is_finished = True
            return
        if change.start.attempt != self.newest.attempt:
            # What an earlier attempt printed is no longer part of the build's log.
            self._window, self._window_size, self._window_start = [], 0, change.start.sequence
        self.status = change.status
        self.events += change.events
        self._window += change.entries
        self._window_size += sum(len(entry.data) for entry in change.entries)
        last = self._window[-1].sequence if self._window else change.start.sequence
        self.newest = Cursor(change.start.attempt, last)
        self.is_finished = change.is_all and change.status not in (Status.QUEUED, Status.RUNNING)
        self._shorten()

    def _shorten(self) -> None:
        dropped = 0
        while self._window_size > WINDOW_BYTES and dropped < len(self._window) - 1:
            self._window_size -= len(self._window[dropped].data)
            dropped += 1
        if dropped:
            self._window_start = self._window[dropped - 1].sequence
            del self._window[:dropped]

    # --- For readers ---------------------------------------------------------------------------------------------

    async def log_after(self, after: Cursor, phase: str) -> tuple[bytes, Cursor]:
        """Encoded events of log entries after a cursor, and the next cursor.

        A cursor of another attempt starts at this one's beginning. Before the first read there are none.
        """
        newest = self.newest
        if newest == NOTHING_READ:
            return b"", after
        after = after.in_attempt(newest.attempt)
        if after.sequence >= self._window_start:
            return self._from_window(after, phase)
        page, is_all = await in_database(read_page, self.job_id, after, phase)
        last = Cursor(after.attempt, page[-1].sequence) if page else after
        # Everything up to the newest entry had been stored before the page was read.
        return b"".join(entry.data for entry in page), max(last, newest) if is_all else last

    def _from_window(self, after: Cursor, phase: str) -> tuple[bytes, Cursor]:
        """Cached for all readers at the same position."""
        key = (after.sequence, phase)
        if key not in self._pieces:
            data, size, last = [], 0, after.sequence
            for entry in self._window[bisect_right(self._window, last, key=attrgetter("sequence")) :]:
                last = entry.sequence
                if not phase or entry.phase == phase:
                    data.append(entry.data)
                    size += len(entry.data)
                if size > SEND_BYTES:
                    break
            self._pieces[key] = b"".join(data), Cursor(after.attempt, last)
        return self._pieces[key]


class GenerationFeed(Feed):
    """A generation's events."""

    async def read(self) -> bool:
        status, events = await in_database(read_generation, self.job_id, self.last_event)
        self.status = status
        self.events += events
        is_all = len(events) < PAGE_ROWS
        self.is_finished = is_all and status not in (Status.QUEUED, Status.RUNNING)  # "": deleted
        return is_all

    def end_document(self) -> dict[str, Any]:
        return {"generationId": self.job_id, "status": wire_status(self.status)}


def read_generation(generation_id: UUID, after: int) -> tuple[str, list[tuple[int, bytes]]]:
    """A generation's status, empty if it does not exist, and its encoded events after an event's id.

    The status is read first: if it had ended by then, nothing can have been added since.
    """
    status = Generation.objects.filter(pk=generation_id).values_list("status", flat=True).first() or ""
    rows = GenerationEvent.objects.filter(generation=generation_id, pk__gt=after).order_by("pk")[:PAGE_ROWS]
    return status, [(row.pk, _generation_event(row)) for row in rows]


def _generation_event(event: GenerationEvent) -> bytes:
    document = {"generationId": event.generation_id, **event.data, "timestamp": event.created_at}
    if "status" in document:
        document["status"] = wire_status(document["status"])
    return as_event(event.kind, document, event_id=event.pk)
