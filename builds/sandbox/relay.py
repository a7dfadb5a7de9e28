"""Bytes from socket to socket."""

import asyncio
import contextlib
import socket

CHUNK_BYTES = 64 * 1024


class Relay:
    """Carries bytes from socket to socket until every way has ended, one has broken, or none moved for `idle` seconds.

    Holds one chunk a way: the next is read when the last has been taken, so a slow reader slows the sender down.
    """

    def __init__(self, *, idle: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle = idle
        self._moved = self._loop.time()

    async def run(self, *ways: tuple[socket.socket, socket.socket]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch())
                async with asyncio.TaskGroup() as pumps:
                    for source, sink in ways:
                        pumps.create_task(self._pump(source, sink))
                watch.cancel()
        except* OSError:
            pass  # a reset or the idle limit: the caller closes both sockets, which tells both sides

    async def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        chunk = memoryview(bytearray(CHUNK_BYTES))
        while size := await self._loop.sock_recv_into(source, chunk):
            try:
                await self._loop.sock_sendall(sink, chunk[:size])
            except OSError:
                return  # what the sink's peer said before it left is still carried, by the other way
            self._moved = self._loop.time()
            await asyncio.sleep(0)  # sockets that are always ready never suspend: one tunnel would starve the rest
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    async def _watch(self) -> None:
        while (quiet := self._loop.time() - self._moved) < self._idle:
            await asyncio.sleep(self._idle - quiet)
        raise TimeoutError
