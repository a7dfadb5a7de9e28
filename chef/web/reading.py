"""Pieces of files and archives for the event loop, which reading never keeps waiting: not for a disk, nor for a store.

What is in memory already is read at once: a thread for each piece would cost more than all else that a download does.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# A slow reader holds two of them. From 256 KiB on, malloc maps each anew, and they are sent half as
# fast: chef.web.memory.
PIECE_BYTES = 240 * 1024
# Threads of their own, few: a store that hangs must not take those of others.
_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="reading")
_IF_IN_MEMORY = getattr(os, "RWF_NOWAIT", None)  # Linux


async def file_pieces(file: IO[bytes], start: int, length: int) -> AsyncGenerator[bytes]:
    """`length` bytes of a file from `start`, fewer if it ends before. Closes the file."""
    descriptor, scratch = _descriptor_of(file), bytearray(min(length, PIECE_BYTES))
    try:
        while length:
            part = memoryview(scratch)[: min(length, PIECE_BYTES)]
            if piece := _at_once(descriptor, start, part):
                await asyncio.sleep(0)  # who reads fast must not keep the others waiting
            elif not (piece := await in_threads(_read_at, file, start, len(part))):
                return
            yield piece
            start, length = start + len(piece), length - len(piece)
    finally:
        _threads.submit(file.close)


async def made_in_threads(pieces: Generator[bytes]) -> AsyncGenerator[bytes]:
    """The same pieces, each made in a thread, not always the same one: they must not need the database."""
    try:
        while (piece := await in_threads(partial(next, pieces, None))) is not None:
            yield piece
    finally:
        _threads.submit(pieces.close)


async def in_threads(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of what may have to wait for a disk or a store."""
    return await asyncio.get_running_loop().run_in_executor(_threads, partial(work, *args, **kwargs))


def _read_at(file: IO[bytes], start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


def _descriptor_of(file: IO[bytes]) -> int | None:
    """None where the file is none of this machine's."""
    try:
        return None if _IF_IN_MEMORY is None else file.fileno()
    except (OSError, AttributeError):
        return None


def _at_once(descriptor: int | None, start: int, part: memoryview) -> bytes:
    """What fills the part and is in the kernel's memory; nothing where that is not so, or cannot be known."""
    if descriptor is None or _IF_IN_MEMORY is None:
        return b""
    try:
        return bytes(part[: os.preadv(descriptor, [part], start, _IF_IN_MEMORY)])
    except OSError:  # it would have to wait, or the file system has no such thing
        return b""
