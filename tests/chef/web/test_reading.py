"""Files and archives in pieces, from every kind of file, without blocking the event loop."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Coroutine, Generator
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import pytest

from chef.web import reading
from chef.web.reading import file_pieces, made_in_threads

pytestmark = pytest.mark.once("postgresql")

PIECE = 1000
# Sizes around multiples of the piece.
SIZES = [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE - 1, 2 * PIECE, 2 * PIECE + 1, 5 * PIECE + 500]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIECE_BYTES", PIECE)


def content(size: int) -> bytes:
    return bytes(number * number % 251 for number in range(size))


def all_of(pieces: AsyncGenerator[bytes]) -> list[bytes]:
    async def gather() -> list[bytes]:
        return [piece async for piece in pieces]

    return asyncio.run(gather())


def until_closed(file: IO[bytes]) -> None:
    deadline = time.monotonic() + 5
    while not file.closed:
        assert time.monotonic() < deadline, "the file is still open"
        time.sleep(0.01)


@pytest.fixture(params=["at once", "in a thread", "from elsewhere"])
def open_content(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens a file with the content: in the page cache, not in it, or without a file descriptor."""
    if request.param == "in a thread":
        monkeypatch.setattr(reading, "_IF_IN_MEMORY", None)

    def open_file(data: bytes) -> IO[bytes]:
        if request.param == "from elsewhere":
            return BytesIO(data)
        (tmp_path / "file").write_bytes(data)
        return (tmp_path / "file").open("rb")

    return open_file


@pytest.mark.parametrize("size", SIZES)
def test_a_file_is_read_completely_in_bounded_pieces(open_content: Any, size: int) -> None:
    file = open_content(content(size))

    pieces = all_of(file_pieces(file, 0, size))

    assert b"".join(pieces) == content(size)
    assert all(0 < len(piece) <= PIECE for piece in pieces)
    until_closed(file)


@pytest.mark.parametrize("start", [0, 1, PIECE - 1, PIECE, 2 * PIECE + 7])
@pytest.mark.parametrize("length", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
def test_any_range_equals_that_of_the_whole(open_content: Any, start: int, length: int) -> None:
    data = content(6 * PIECE)

    assert b"".join(all_of(file_pieces(open_content(data), start, length))) == data[start : start + length]


def test_a_file_shorter_than_expected_ends_early(open_content: Any) -> None:
    data = content(2 * PIECE + 10)

    assert b"".join(all_of(file_pieces(open_content(data), 5, 100 * PIECE))) == data[5:]


def test_a_file_is_closed_when_its_reader_disconnects(open_content: Any) -> None:
    file = open_content(content(10 * PIECE))

    async def leave_early() -> None:
        pieces = file_pieces(file, 0, 10 * PIECE)
        await anext(pieces)
        await pieces.aclose()

    asyncio.run(leave_early())

    until_closed(file)


class Slow(BytesIO):
    """A slow store."""

    def read(self, size: int | None = -1) -> bytes:
        time.sleep(0.1)
        return super().read(size)


def ticks_during(work: Coroutine[Any, Any, Any]) -> int:
    """How often another task ran meanwhile."""

    async def run() -> int:
        ticks, working = 0, asyncio.create_task(work)
        while not working.done():
            ticks += 1
            await asyncio.sleep(0)
        await working
        return ticks

    return asyncio.run(run())


async def drain(pieces: AsyncGenerator[bytes]) -> None:
    async for _ in pieces:
        pass


def test_a_slow_store_does_not_block_the_event_loop() -> None:
    assert ticks_during(drain(file_pieces(Slow(content(3 * PIECE)), 0, 3 * PIECE))) > 100


def test_a_fast_reader_yields_to_other_tasks(open_content: Any) -> None:
    assert ticks_during(drain(file_pieces(open_content(content(50 * PIECE)), 0, 50 * PIECE))) >= 50


def test_cached_files_are_read_without_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_read_at", None)
    (tmp_path / "file").write_bytes(content(3 * PIECE))  # so it is in the page cache

    pieces = all_of(file_pieces((tmp_path / "file").open("rb"), 0, 3 * PIECE))

    assert b"".join(pieces) == content(3 * PIECE)


# --- Generated content ---------------------------------------------------------------------------------


def test_content_is_generated_in_order_in_threads_and_closed() -> None:
    threads, ended = set(), threading.Event()

    def made() -> Generator[bytes]:
        try:
            for number in range(100):
                threads.add(threading.current_thread())
                yield str(number).encode()
        finally:
            ended.set()

    assert all_of(made_in_threads(made())) == [str(number).encode() for number in range(100)]
    assert threading.main_thread() not in threads
    assert ended.wait(5)


def test_a_generator_is_closed_when_its_reader_disconnects() -> None:
    ended = threading.Event()

    def endless() -> Generator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            ended.set()

    async def leave_early() -> None:
        pieces = made_in_threads(endless())
        await anext(pieces)
        await pieces.aclose()

    asyncio.run(leave_early())

    assert ended.wait(5)


def test_an_error_of_a_generator_is_raised_to_the_reader() -> None:
    def failing() -> Generator[bytes]:
        yield b"x"
        raise OSError("the store is gone")

    with pytest.raises(OSError, match="the store is gone"):
        all_of(made_in_threads(failing()))
