"""Publishing changes through a real Redis; one that is down or hangs does not delay builds."""

import asyncio
import contextlib
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
import redis
from django.conf import settings as configured
from pytest_django import Settings

from builds.logs.writer import FLUSH_SECONDS, LogWriter
from builds.models import Build, LogChunk
from builds.queue.claims import BuildLease, claim
from chef.jobs import pubsub
from chef.jobs.pubsub import PAUSE_SECONDS, channel, publish_change, subscribe

pytestmark = pytest.mark.slow


@pytest.fixture
def hanging_redis(settings: Settings) -> Iterator[None]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings.REDIS_URL = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        yield


class Subscriber:
    """A subscriber in a task of the running loop; records what it receives."""

    def __init__(self) -> None:
        self.received: list[UUID] = []
        self.connections: list[bool] = []
        self.task = asyncio.create_task(subscribe(self.received.append, self.connections.append))

    async def until(self, check: Callable[["Subscriber"], bool]) -> None:
        async with asyncio.timeout(10):
            while not check(self):
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
def lease(queue_build: Callable[..., Build]) -> BuildLease:
    queue_build()
    lease = claim("worker")
    assert lease
    return lease


# --- Publish and subscribe ---------------------------------------------------------------------------------------


@pytest.mark.redis
def test_a_change_reaches_every_subscriber_of_this_installation(settings: Settings) -> None:
    settings.INSTALLATION = f"test-{uuid.uuid4().hex}"
    ids = [uuid.uuid4() for _ in range(20)]

    async def run() -> list[Subscriber]:
        subscribers = [Subscriber(), Subscriber()]
        for subscriber in subscribers:
            await subscriber.until(lambda one: one.connections == [True])
        settings.INSTALLATION, mine = "another", settings.INSTALLATION
        await asyncio.to_thread(publish_change, uuid.uuid4())
        settings.INSTALLATION = mine
        for build_id in ids:
            await asyncio.to_thread(publish_change, build_id)
        for subscriber in subscribers:
            await subscriber.until(lambda one: len(one.received) >= len(ids))
            await subscriber.stop()
        return subscribers

    assert [subscriber.received for subscriber in asyncio.run(run())] == [ids, ids]


@pytest.mark.redis
def test_messages_that_are_not_ids_are_ignored(settings: Settings) -> None:
    settings.INSTALLATION = f"test-{uuid.uuid4().hex}"
    build_id = uuid.uuid4()

    async def run() -> list[UUID]:
        subscriber = Subscriber()
        await subscriber.until(lambda one: one.connections == [True])
        with redis.Redis.from_url(configured.REDIS_URL) as client:
            client.publish(channel(), b"\xff nonsense")
        await asyncio.to_thread(publish_change, build_id)
        await subscriber.until(lambda one: bool(one.received))
        await subscriber.stop()
        return subscriber.received

    assert asyncio.run(run()) == [build_id]


def test_a_subscriber_ends_even_if_its_client_swallows_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    async def swallowing(*_: object) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    monkeypatch.setattr(pubsub, "_subscribe_once", swallowing)

    async def run() -> bool:
        subscriber = Subscriber()
        await asyncio.sleep(0.01)
        subscriber.task.cancel()
        await asyncio.wait({subscriber.task}, timeout=5)
        return subscriber.task.cancelled()

    assert asyncio.run(run())


@pytest.mark.usefixtures("hanging_redis")
def test_a_subscriber_notices_a_hanging_redis() -> None:
    async def run() -> list[bool]:
        subscriber = Subscriber()
        await subscriber.until(lambda one: False in one.connections)
        await subscriber.stop()
        return subscriber.connections

    assert asyncio.run(run()) == [False]


@pytest.mark.usefixtures("hanging_redis")
def test_publishing_to_a_hanging_redis_waits_only_once() -> None:
    began = time.monotonic()
    publish_change(uuid.uuid4())
    first = time.monotonic() - began

    for _ in range(1000):
        publish_change(uuid.uuid4())

    assert first < 0.5
    assert time.monotonic() - began - first < PAUSE_SECONDS / 10


def test_publishing_to_a_redis_that_is_down_is_harmless(settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"

    publish_change(uuid.uuid4())


# --- The log writer ----------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_line_after_a_pause_is_stored_at_once(lease: BuildLease) -> None:
    delays = []
    with LogWriter(lease, max_bytes=10**6) as log:
        log.start_phase("build")
        for number in range(10):
            time.sleep(0.15)
            began = time.monotonic()
            log.write("stdout", f"line {number}\n".encode())
            while LogChunk.objects.count() <= number:
                time.sleep(0.002)
            delays.append(time.monotonic() - began)

    assert sorted(delays)[5] < FLUSH_SECONDS


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_build_s_rapid_output_is_stored_a_dozen_times_a_second(lease: BuildLease, end: bytes) -> None:
    with LogWriter(lease, max_bytes=10**6) as log:
        log.start_phase("build")
        stop = time.monotonic() + 2
        written = 0
        while time.monotonic() < stop:
            log.write("stdout", b"." + end)
            written += 1
            time.sleep(0.001)
        log.end_phase()

    assert 4 <= LogChunk.objects.count() <= 26
    stored = "".join(LogChunk.objects.order_by("sequence").values_list("text", flat=True))
    assert stored.count(".") == written


@pytest.mark.django_db(transaction=True)
def test_an_unfinished_line_is_stored_after_a_while(lease: BuildLease) -> None:
    with LogWriter(lease, max_bytes=10**6) as log:
        log.start_phase("build")
        log.write("stdout", b"Continue? ")
        deadline = time.monotonic() + 2
        while not LogChunk.objects.exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    assert [chunk.text for chunk in LogChunk.objects.all()] == ["Continue? "]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("hanging_redis")
def test_a_hanging_redis_does_not_delay_the_log(lease: BuildLease) -> None:
    with LogWriter(lease, max_bytes=10**6) as log:
        log.start_phase("build")
        began = time.monotonic()
        for number in range(100):
            log.write("stdout", f"line {number}\n".encode())
            time.sleep(0.01)
        log.end_phase()
        seconds = time.monotonic() - began

    assert seconds < 2.5
    assert LogChunk.objects.filter(text__contains="line 99\n").exists()
