"""What live readers of a build or a generation are given: read once for all of them, and kept for a while.

A feed follows one job while anyone reads it. Readers at its tip get the same bytes out of a bounded window; one
that has fallen behind the window reads pages of its own. Knows nothing of HTTP, nor of who reads.
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

from builds.logs import writer as logs
from builds.logs.entries import entry_document
from builds.models import Build, BuildEvent, LogChunk
from chef.jobs.models import Status
from projects.api.documents import wire_status
from projects.models import Generation, GenerationEvent

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

WINDOW_BYTES = 1024**2
SEND_BYTES = 64 * 1024  # at most so much, or one entry, is given to a reader at once
PAGE_ROWS = 200
# How often a feed looks by itself: when Redis is not heard, and when it is, in case that a message was lost.
UNTOLD_SECONDS = 1.0
TOLD_SECONDS = 5.0
# Readers are woken a few at a time with a pause, so that ordinary requests come in between.
READERS_AT_ONCE = 7
PAUSE_SECONDS = 0.002

# Threads of their own, few: readers must not take those of ordinary requests, nor all connections of the pool.
_threads = ThreadPoolExecutor(max_workers=3, thread_name_prefix="live")
# One for those that many may ask for at the same moment, again so that ordinary requests come in between.
_queue = ThreadPoolExecutor(max_workers=1, thread_name_prefix="live-queue")


async def in_database(read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of a function that reads the database, from a thread that gives its connection back."""
    return await asyncio.get_running_loop().run_in_executor(_threads, _alone, read, args, kwargs)


async def queued_in_database(read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `in_database`, one after the other with a pause between them."""

    def run() -> T:
        result = _alone(read, args, kwargs)
        time.sleep(PAUSE_SECONDS)
        return result

    return await asyncio.get_running_loop().run_in_executor(_queue, run)


def _alone(read: Callable[..., T], args: Any, kwargs: Any) -> T:
    try:
        return read(*args, **kwargs)
    finally:
        connection.close()


# --- As they go over the wire ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One log entry as an event."""

    sequence: int
    phase: str
    data: bytes


def as_event(kind: str, document: Any, *, event_id: object = "") -> bytes:
    """A server-sent event. JSON has no line breaks of its own, so it is one line of data."""
    head = f"id: {event_id}\nevent: {kind}\n" if event_id else f"event: {kind}\n"
    return head.encode() + b"data: " + orjson.dumps(document, option=orjson.OPT_UTC_Z) + b"\n\n"


def _log_event(chunk: LogChunk) -> Entry:
    data = as_event("log", entry_document(chunk), event_id=f"{chunk.attempt}.{chunk.sequence}")
    return Entry(chunk.sequence, chunk.phase, data)


def _build_event(event: BuildEvent, build: Build) -> bytes:
    """What the event says of its own time, so that it is the same whenever it is read."""
    ended = event.to_status in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)
    # Nothing changes after the end; before it, a change of status is also the beginning of the next phases.
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
class Position:
    """How much of a build has been read: up to which entry of which attempt, and up to which event."""

    attempt: int = -1  # none yet
    sequence: int = 0
    event: int = 0


@dataclass(frozen=True)
class Change:
    """What is new about a build: `is_whole` when there was no more to read at that moment."""

    status: str
    attempt: int
    since: int  # the entries are all of the attempt after this one
    entries: list[Entry]
    events: list[tuple[int, bytes]]
    is_whole: bool


def read_change(build_id: UUID, position: Position) -> Change | None:
    """What came after a position; the end of the log when nothing was read before. None: there is no such build.

    The build is read first: had it ended by then, nothing can have come since.
    """
    build = Build.objects.only("status", "fence", "phase", "progress").filter(pk=build_id).first()
    if build is None:
        return None
    since = position.sequence if build.fence == position.attempt else 0
    if position.attempt < 0:
        last = LogChunk.objects.filter(build=build, attempt=build.fence).aggregate(last=Max("sequence"))["last"] or 0
        since = max(last - PAGE_ROWS, 0)
    chunks, _ = logs.read(build, after=f"{build.fence}.{since}", limit=PAGE_ROWS)
    rows = BuildEvent.objects.filter(build=build, pk__gt=position.event).order_by("pk")[:PAGE_ROWS]
    events = [(event.pk, _build_event(event, build)) for event in rows]
    is_whole = len(chunks) < PAGE_ROWS and len(events) < PAGE_ROWS
    return Change(build.status, build.fence, since, [_log_event(chunk) for chunk in chunks], events, is_whole)


def read_page(build_id: UUID, attempt: int, after: int, phase: str) -> tuple[list[Entry], bool]:
    """Entries of an attempt after a sequence, of bounded size, and whether those are all for now."""
    chunks, _ = logs.read(Build(pk=build_id, fence=attempt), after=f"{attempt}.{after}", phase=phase, limit=PAGE_ROWS)
    page: list[Entry] = []
    size = 0
    for chunk in chunks:
        page.append(_log_event(chunk))
        size += len(page[-1].data)
        if size > SEND_BYTES:
            break
    return page, len(page) == len(chunks) < PAGE_ROWS


class Feed:
    """One job, followed while it has readers. All methods belong to one event loop."""

    def __init__(self, job_id: UUID) -> None:
        self.job_id = job_id
        self.status = ""
        self.events: list[tuple[int, bytes]] = []
        self.is_whole = False  # the job has ended, and all of it has been read
        self.readers = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._rung = asyncio.Event()

    async def read(self) -> bool:
        """Read what is new. Returns whether that was all there was at that moment."""
        raise NotImplementedError

    def end_document(self) -> dict[str, Any]:
        """What the last event of each stream tells."""
        raise NotImplementedError

    # --- For whoever follows the job -----------------------------------------------------------------------------

    def ring(self) -> None:
        """The job may have changed: look."""
        self._rung.set()

    async def follow(self, is_told: Callable[[], bool]) -> None:
        """Read each change and wake the readers, until the job has ended. `is_told`: whether Redis is heard."""
        while not self.is_whole:
            self._rung.clear()
            try:
                is_all = await self.read()
            except Exception:  # whatever it is: the next look may succeed, and readers must not hang for ever
                logger.warning("%s cannot be read for its live readers", self.job_id, exc_info=True)
                await asyncio.sleep(UNTOLD_SECONDS)
                continue
            await self._wake()
            if is_all:
                seconds = TOLD_SECONDS if is_told() else UNTOLD_SECONDS
                seconds = min(seconds, settings.LIVE_PING_SECONDS / 3)
                await self._until_rung(seconds * random.uniform(0.7, 1))  # noqa: S311 -- feeds must not look in step

    async def _until_rung(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            pass  # then without having been told

    async def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for number, reader in enumerate(waiting, 1):
            if not reader.done():
                reader.set_result(None)
            if not number % READERS_AT_ONCE:
                await asyncio.sleep(PAUSE_SECONDS)

    # --- For readers ---------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Wait until the feed has looked again: at a change, or by itself, a few times in LIVE_PING_SECONDS."""
        reader = asyncio.get_running_loop().create_future()
        self._waiting.add(reader)
        try:
            await reader
        finally:
            self._waiting.discard(reader)


class BuildFeed(Feed):
    """A build's log and events."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__(job_id)
        self.attempt = -1  # as long as nothing has been read
        self.tip = 0  # the last entry of the attempt, and all before it are stored
        self._window: list[Entry] = []
        self._window_after = 0  # the window holds every entry of the attempt after this one
        self._window_size = 0
        self._given: dict[tuple[int, str], tuple[bytes, int]] = {}

    async def read(self) -> bool:
        change = await in_database(read_change, self.job_id, self._position())
        self._apply(change)
        return change is None or change.is_whole

    def end_document(self) -> dict[str, Any]:
        return {"jobId": self.job_id, "status": self.status}

    def _position(self) -> Position:
        return Position(self.attempt, self.tip, self.events[-1][0] if self.events else 0)

    def _apply(self, change: Change | None) -> None:
        self._given.clear()
        if change is None:  # deleted, with all that belongs to it
            self.is_whole = True
            return
        if change.attempt != self.attempt:
            # What another attempt printed is not part of the build's log any more.
            self.attempt, self._window, self._window_size = change.attempt, [], 0
            self._window_after = change.since
        self.status = change.status
        self.events += change.events
        self._window += change.entries
        self._window_size += sum(len(entry.data) for entry in change.entries)
        self.tip = self._window[-1].sequence if self._window else change.since
        self.is_whole = change.is_whole and change.status not in (Status.QUEUED, Status.RUNNING)
        self._shorten()

    def _shorten(self) -> None:
        gone = 0
        while self._window_size > WINDOW_BYTES and gone < len(self._window) - 1:
            self._window_size -= len(self._window[gone].data)
            gone += 1
        if gone:
            self._window_after = self._window[gone - 1].sequence
            del self._window[:gone]

    # --- For readers ---------------------------------------------------------------------------------------------

    @property
    def has_been_read(self) -> bool:
        return self.attempt >= 0

    async def log_after(self, attempt: int, sequence: int, phase: str) -> tuple[bytes, int, int]:
        """Events of log entries after a position, as one piece, and the position to go on from.

        A position in another attempt starts this one from its beginning.
        """
        if attempt != self.attempt:
            sequence = 0
        attempt, tip = self.attempt, self.tip
        if sequence >= self._window_after:
            data, sequence = self._from_window(sequence, phase)
            return data, attempt, sequence
        page, is_all = await in_database(read_page, self.job_id, attempt, sequence, phase)
        last = page[-1].sequence if page else sequence
        # All that was stored up to the tip had been stored before the page was read.
        return b"".join(entry.data for entry in page), attempt, max(last, tip) if is_all else last

    def _from_window(self, after: int, phase: str) -> tuple[bytes, int]:
        """Made once for all readers at the same place."""
        if (after, phase) not in self._given:
            pieces, size, last = [], 0, after
            for entry in self._window[bisect_right(self._window, after, key=attrgetter("sequence")) :]:
                last = entry.sequence
                if not phase or entry.phase == phase:
                    pieces.append(entry.data)
                    size += len(entry.data)
                if size > SEND_BYTES:
                    break
            self._given[after, phase] = b"".join(pieces), last
        return self._given[after, phase]


class GenerationFeed(Feed):
    """A generation's events."""

    async def read(self) -> bool:
        after = self.events[-1][0] if self.events else 0
        status, events = await in_database(read_generation, self.job_id, after)
        self.status = status
        self.events += events
        is_all = len(events) < PAGE_ROWS
        self.is_whole = is_all and status not in (Status.QUEUED, Status.RUNNING)  # "": deleted
        return is_all

    def end_document(self) -> dict[str, Any]:
        return {"generationId": self.job_id, "status": wire_status(self.status)}


def read_generation(generation_id: UUID, after: int) -> tuple[str, list[tuple[int, bytes]]]:
    """A generation's status, empty when there is no such one, and its events after one of them, as they are sent.

    The status is read first: had it ended by then, nothing can have come since.
    """
    status = Generation.objects.filter(pk=generation_id).values_list("status", flat=True).first() or ""
    rows = GenerationEvent.objects.filter(generation=generation_id, pk__gt=after).order_by("pk")[:PAGE_ROWS]
    return status, [(row.pk, _generation_event(row)) for row in rows]


def _generation_event(event: GenerationEvent) -> bytes:
    told = {"generationId": event.generation_id, **event.data, "timestamp": event.created_at}
    if "status" in told:
        told["status"] = wire_status(told["status"])
    return as_event(event.kind, told, event_id=event.pk)
