"""Feeds and their readers: every entry once and in order, with one database read for all readers."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from builds.live import feeds
from builds.live.streams import PING, FeedRegistry, PagePosition, event_stream, log_stream, page_stream, registry
from builds.logs.entries import Cursor
from builds.models import Build, LogChunk
from builds.queue.claims import BuildLease, claim
from chef.jobs.models import Status

pytestmark = pytest.mark.django_db(transaction=True)

Entry = tuple[int, int]  # attempt and sequence


@pytest.fixture
def lease(queue_build: Callable[..., Build]) -> BuildLease:
    queue_build()
    lease = claim("worker")
    assert lease
    return lease


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits so small that a log of some dozen entries exceeds them."""
    monkeypatch.setattr(feeds, "WINDOW_BYTES", 2_000)
    monkeypatch.setattr(feeds, "SEND_BYTES", 500)
    monkeypatch.setattr(feeds, "PAGE_ROWS", 7)


def store(lease: BuildLease, *sequences: int, phase: str = "build") -> None:
    now = timezone.now()
    LogChunk.objects.bulk_create(
        LogChunk(
            build=lease.build,
            attempt=lease.fence,
            sequence=sequence,
            phase=phase,
            stream="stdout",
            timestamp=now,
            text=f"line {sequence}\n",
        )
        for sequence in sequences
    )


def entries(data: bytes) -> list[Entry]:
    found = [json.loads(line[6:]) for line in data.decode().splitlines() if line.startswith("data: {")]
    return [(entry["attempt"], entry["sequence"]) for entry in found if "sequence" in entry]


async def whole(stream: AsyncGenerator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


def read(stream: Callable[..., AsyncGenerator[bytes]], lease: BuildLease, **options: Any) -> bytes:
    async def run() -> bytes:
        return await whole(stream(lease.build.pk, **options))

    return asyncio.run(run())


async def changing(lease: BuildLease, change: Callable[..., None], *args: Any) -> None:
    """Change the build from a thread, and wake the feed up as the subscription would."""
    await feeds.in_database(change, *args)
    registry().feeds[lease.build.pk].wake_up()


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not check():
            await asyncio.sleep(0.01)


class Collector:
    """A reader in a task, and what it has received."""

    def __init__(self, stream: AsyncGenerator[bytes]) -> None:
        self.pieces: list[bytes] = []
        self.task = asyncio.create_task(self._run(stream))

    async def _run(self, stream: AsyncGenerator[bytes]) -> None:
        async for piece in stream:
            self.pieces.append(piece)

    @property
    def entries(self) -> list[Entry]:
        return entries(b"".join(self.pieces))


def with_redis_left_out(test: Callable[[], Awaitable[None]], settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    asyncio.run(test())  # type: ignore[arg-type]


# --- Finished builds ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_window")
def test_a_log_longer_than_the_window_is_complete_from_any_position(lease: BuildLease) -> None:
    store(lease, *range(1, 61))
    lease.end(Status.COMPLETED)

    for after in range(0, 61, 4):
        data = read(log_stream, lease, after=Cursor(1, after))
        assert entries(data) == [(1, sequence) for sequence in range(after + 1, 61)]
        assert data.endswith(b'data: {"jobId":"' + str(lease.build.pk).encode() + b'","status":"completed"}\n\n')


@pytest.mark.usefixtures("small_window")
def test_one_phase_is_complete_from_any_position(lease: BuildLease) -> None:
    store(lease, *range(1, 30), phase="installation")
    store(lease, *range(30, 61))
    lease.end(Status.COMPLETED)

    for after in range(0, 61, 7):
        data = read(log_stream, lease, after=Cursor(1, after), phase="installation")
        assert entries(data) == [(1, sequence) for sequence in range(after + 1, 30)]
        assert b"event: end\n" in data


@pytest.mark.usefixtures("small_window")
def test_missing_sequence_numbers_do_not_block_readers(lease: BuildLease) -> None:
    store(lease, 3, 40, 41, 90)
    lease.end(Status.COMPLETED)

    assert entries(read(log_stream, lease)) == [(1, 3), (1, 40), (1, 41), (1, 90)]


def test_a_cursor_of_an_earlier_attempt_starts_at_the_current_attempt_s_beginning(lease: BuildLease) -> None:
    store(lease, 1, 2, 3)
    lease.end(Status.QUEUED)
    second = claim("worker")
    assert second
    store(second, 1, 2)
    second.end(Status.COMPLETED)

    assert entries(read(log_stream, lease, after=Cursor(1, 2))) == [(2, 1), (2, 2)]


def test_a_deleted_build_ends_its_streams(lease: BuildLease) -> None:
    lease.build.delete()
    lease.build.pk = lease.attempt.build_id

    assert b"event: end\n" in read(log_stream, lease)
    assert b"event: end\n" in read(event_stream, lease)


# --- Running builds ----------------------------------------------------------------------------------------------


def test_readers_share_one_read_and_the_same_bytes(
    lease: BuildLease, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []

    def counted(*args: Any) -> Any:
        reads.append(args)
        return real(*args)

    real = feeds.read_change
    monkeypatch.setattr(feeds, "read_change", counted)

    async def test() -> None:
        readers = [Collector(log_stream(lease.build.pk)) for _ in range(50)]
        for sequence in range(1, 6):
            await until(lambda: bool(registry().feeds))
            await changing(lease, store, lease, sequence)
            await until(lambda last=sequence: all(r.entries[-1:] == [(1, last)] for r in readers))  # type: ignore[misc]
        seen = len(reads)
        await changing(lease, lease.end, Status.COMPLETED)
        await asyncio.gather(*(reader.task for reader in readers))
        assert seen <= 8  # five changes, the first read, and at most two by polling
        assert len({id(reader.pieces[-2]) for reader in readers}) == 1
        assert {tuple(reader.entries) for reader in readers} == {tuple((1, n) for n in range(1, 6))}

    with_redis_left_out(test, settings)


@pytest.mark.usefixtures("small_window")
def test_a_slow_reader_loses_nothing_and_the_window_stays_small(lease: BuildLease, settings: Settings) -> None:
    async def test() -> None:
        slow = log_stream(lease.build.pk)
        given = [await anext(slow), await anext_after(slow, lambda: changing(lease, store, lease, 1))]
        quick = Collector(log_stream(lease.build.pk))
        for start in range(2, 200, 20):
            await changing(lease, store, lease, *range(start, start + 20))
            await until(lambda last=start + 19: quick.entries[-1:] == [(1, last)])  # type: ignore[misc]
            feed = registry().feeds[lease.build.pk]
            assert isinstance(feed, feeds.BuildFeed)
            assert feed._window_size < 2_500
        await changing(lease, lease.end, Status.COMPLETED)
        given += [piece async for piece in slow]
        await quick.task
        assert entries(b"".join(given)) == quick.entries == [(1, n) for n in range(1, 202)]

    with_redis_left_out(test, settings)


async def anext_after(stream: AsyncGenerator[bytes], act: Callable[[], Awaitable[None]]) -> bytes:
    """The next piece, caused by `act`, which needs the reader to be waiting."""
    piece = asyncio.ensure_future(anext(stream))
    await until(lambda: bool(registry().feeds))
    await act()
    return await piece


def test_readers_continue_with_the_next_attempt(lease: BuildLease, settings: Settings) -> None:
    async def test() -> None:
        log, events = Collector(log_stream(lease.build.pk)), Collector(event_stream(lease.build.pk))
        await until(lambda: bool(registry().feeds))
        await changing(lease, store, lease, 1, 2)
        await until(lambda: log.entries == [(1, 1), (1, 2)])
        await changing(lease, lease.end, Status.QUEUED)
        second = await feeds.in_database(claim, "worker")
        assert second
        await changing(lease, store, second, 1)
        await until(lambda: log.entries[2:] == [(2, 1)])
        await changing(lease, second.end, Status.COMPLETED)
        await asyncio.gather(log.task, events.task)
        data = [line for line in b"".join(events.pieces).decode().splitlines() if line.startswith("data: ")]
        statuses = [json.loads(line[6:])["status"] for line in data]
        assert statuses == ["queued", "running", "queued", "running", "completed", "completed"]

    with_redis_left_out(test, settings)


def test_without_redis_a_feed_polls(lease: BuildLease, settings: Settings) -> None:
    async def test() -> None:
        reader = Collector(log_stream(lease.build.pk))
        await until(lambda: bool(registry().feeds))
        await feeds.in_database(store, lease, 1)
        await until(lambda: reader.entries == [(1, 1)])
        await feeds.in_database(lease.end, Status.COMPLETED)
        await reader.task

    with_redis_left_out(test, settings)


def test_a_reader_of_a_quiet_phase_is_pinged_while_another_is_noisy(lease: BuildLease, settings: Settings) -> None:
    settings.LIVE_PING_SECONDS = 0.3

    async def test() -> None:
        reader = Collector(log_stream(lease.build.pk, phase="installation"))
        await until(lambda: bool(registry().feeds))
        for sequence in range(1, 21):
            await changing(lease, store, lease, sequence)
            await asyncio.sleep(0.05)
        reader.task.cancel()
        assert reader.pieces.count(PING) >= 3
        assert reader.entries == []

    with_redis_left_out(test, settings)


def test_following_stops_after_the_last_reader_has_left(lease: BuildLease, settings: Settings) -> None:
    async def test() -> None:
        readers = [Collector(log_stream(lease.build.pk)) for _ in range(3)]
        await until(lambda: bool(registry().feeds))
        for reader in readers:
            assert registry().feeds
            reader.task.cancel()
            await asyncio.gather(reader.task, return_exceptions=True)
        assert not registry().feeds

    with_redis_left_out(test, settings)


def test_reading_a_change_is_retried(lease: BuildLease, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    real, faults = feeds.read_change, iter([RuntimeError("once")])

    def failing(*args: Any) -> Any:
        for fault in faults:
            raise fault
        return real(*args)

    monkeypatch.setattr(feeds, "read_change", failing)
    store(lease, 1)
    lease.end(Status.COMPLETED)

    assert entries(read(log_stream, lease)) == [(1, 1)]


def test_each_event_loop_has_its_own_registry() -> None:
    async def get() -> FeedRegistry:
        return registry()

    assert asyncio.run(get()) is not asyncio.run(get())


# --- Log and changes of a page -----------------------------------------------------------------------------------


def blocks(data: bytes) -> list[dict[str, str]]:
    """The fields of each event of a stream that has any."""
    found = []
    for block in data.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields.keys() & {"event", "id"}:
            found.append(fields)
    return found


@pytest.mark.usefixtures("small_window")
def test_a_page_s_stream_has_log_and_changes_exactly_once_and_ends(lease: BuildLease) -> None:
    store(lease, *range(1, 31))
    lease.end(Status.COMPLETED)

    data = read(page_stream, lease)
    events = blocks(data)

    assert entries(data) == [(1, sequence) for sequence in range(1, 31)]
    assert [json.loads(one["data"])["status"] for one in events if one.get("event") == "status"] == [
        "queued",
        "running",
        "completed",
    ]
    assert events[-1]["event"] == "end"
    assert not any(
        "id" in one and "event" in one for one in events
    )  # an id contains the position in all parts of the stream


@pytest.mark.usefixtures("small_window")
def test_a_disconnected_page_resumes_without_loss_or_repetition(lease: BuildLease) -> None:
    store(lease, *range(1, 31))
    lease.end(Status.COMPLETED)
    whole = blocks(read(page_stream, lease))

    places = [number for number, one in enumerate(whole) if "id" in one]
    assert len(places) > 3
    for place in places:
        rest = blocks(read(page_stream, lease, after=PagePosition.parse(whole[place]["id"])))
        assert [one for one in rest if "id" not in one] == [one for one in whole[place:] if "id" not in one]


@pytest.mark.parametrize("place", ["", "1.2", "1.2-", "-3", "1.2-3\n", "a.b-c", "1.2-٣"])
def test_an_invalid_position_in_a_page_s_stream_is_refused(place: str) -> None:
    with pytest.raises(ValueError, match="not from an event of this stream"):
        PagePosition.parse(place)


def test_a_page_gets_what_arrives_while_it_reads(lease: BuildLease) -> None:
    async def run() -> bytes:
        data = b""
        stream = page_stream(lease.build.pk)
        async for piece in stream:
            data += piece
            if b"line 1" in data and b"line 2" not in data:
                await changing(lease, store, lease, 2)
            elif b"line 2" in data and b"completed" not in data:
                await changing(lease, lease.end, Status.COMPLETED)
        return data

    store(lease, 1)
    data = asyncio.run(run())

    assert entries(data) == [(1, 1), (1, 2)]
    assert b'"status":"completed"' in data
    assert b"event: end" in data
