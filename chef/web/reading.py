"""Reads files and archives in pieces without blocking the event loop on a disk or a remote store.

What is cached in memory is read directly: a thread for each piece would cost more than the rest of a download.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# A slow client holds two of them. From 256 KiB on, malloc maps each one separately, and sending is half as
# fast: chef.web.memory.
PIECE_BYTES = 240 * 1024
# A small separate pool: a store that hangs must not use up other threads.
_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="reading")
_IF_IN_MEMORY = getattr(os, "RWF_NOWAIT", None)  # Linux


async def file_pieces(file: IO[bytes], start: int, length: int) -> AsyncGenerator[bytes]:
    """`length` bytes of a file from `start`, fewer if it ends earlier. Closes the file."""
    descriptor, scratch = _descriptor_of(file), bytearray(min(length, PIECE_BYTES))
    try:
        while length:
            part = memoryview(scratch)[: min(length, PIECE_BYTES)]
            if piece := _read_cached(descriptor, start, part):
                await asyncio.sleep(0)  # a fast client must not starve the others
            elif not (piece := await in_threads(_read_at, file, start, len(part))):
                return
            yield piece
            start, length = start + len(piece), length - len(piece)
    finally:
        _threads.submit(file.close)


async def made_in_threads(pieces: Generator[bytes]) -> AsyncGenerator[bytes]:
    """The same pieces, each generated in some thread of the pool: they must not need the database."""
    try:
        while (piece := await in_threads(partial(next, pieces, None))) is not None:
            yield piece
    finally:
        _threads.submit(pieces.close)


async def in_threads(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking call in the pool and return its result."""
    return await asyncio.get_running_loop().run_in_executor(_threads, partial(work, *args, **kwargs))


def _read_at(file: IO[bytes], start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


def _descriptor_of(file: IO[bytes]) -> int | None:
    """The file's descriptor; None if it is not a local file."""
    try:
        return None if _IF_IN_MEMORY is None else file.fileno()
    except (OSError, AttributeError):
        return None


def _read_cached(descriptor: int | None, start: int, part: memoryview) -> bytes:
    """The part, if the kernel has all of it in memory; empty if it has not, or that cannot be known."""
    if descriptor is None or _IF_IN_MEMORY is None:
        return b""
    try:
        return bytes(part[: os.preadv(descriptor, [part], start, _IF_IN_MEMORY)])
    except OSError:  # it would block, or the file system does not support it
        return b""
