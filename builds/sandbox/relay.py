"""Copies bytes between sockets."""

import asyncio
import contextlib
import socket

CHUNK_BYTES = 64 * 1024


class Relay:
    """Copies bytes between sockets until all directions ended, one failed, or none was active for `idle` seconds.

    Holds one chunk per direction: the next is read once the last has been sent, so a slow reader slows the sender.
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
            pass  # a reset or the idle limit: the caller closes both sockets, which both sides notice

    async def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        chunk = memoryview(bytearray(CHUNK_BYTES))
        while size := await self._loop.sock_recv_into(source, chunk):
            try:
                await self._loop.sock_sendall(sink, chunk[:size])
            except OSError:
                return  # what the sink's peer sent before it left is still copied in the other direction
            self._moved = self._loop.time()
            await asyncio.sleep(0)  # a socket that is always ready never suspends and would starve the other tunnels
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    async def _watch(self) -> None:
        while (quiet := self._loop.time() - self._moved) < self._idle:
            await asyncio.sleep(self._idle - quiet)
        raise TimeoutError
