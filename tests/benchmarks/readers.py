"""Many readers of one live log in one cheap process: raw connections that record bytes, parsed at the end.

The readers share the machine with what they measure, so nothing is decoded while lines arrive.
"""

import asyncio
import random
import re
import statistics
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import uvloop

# Printed by the build: a number, and the container's clock in seconds.
LINE = re.compile(rb"line (\d+) (\d+\.\d+)")
_ID = re.compile(rb"^id: (\S+)$", re.MULTILINE)
_END = b"event: end\n"
CUT_SECONDS = (1.0, 6.0)  # range of seconds that an interrupted reader reads each time
ALL_CONNECTED_SECONDS = 3.0


@dataclass(frozen=True)
class Journal:
    """What one reader received: the numbers of the lines in order, and each line's delay in seconds."""

    numbers: Sequence[int]
    delays: Sequence[float]
    resumed: int
    has_ended: bool


@dataclass(frozen=True)
class Stream:
    """The log to read."""

    url: str
    path: str
    token: str
    readers: int
    cut_readers: int  # this many of them are disconnected and resume repeatedly


def watch(stream: Stream) -> list[Journal]:
    """Read until the log's end with all readers at once."""
    return uvloop.run(_watch(stream))


async def _watch(stream: Stream) -> list[Journal]:
    readers = [_Reader(stream, is_cut=number < stream.cut_readers) for number in range(stream.readers)]
    pause = ALL_CONNECTED_SECONDS / stream.readers
    return await asyncio.gather(*(reader.read(pause * number) for number, reader in enumerate(readers)))


class _Connection(asyncio.Protocol):
    """Records bytes and when they arrived."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.marks: list[tuple[int, float]] = []  # (bytes so far, time)
        self.over = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.marks.append((len(self.data), time.time()))
        # Searching only the latest bytes is cheap, and enough to find the end.
        if _END in data and not self.over.done():
            self.over.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)


class _Reader:
    def __init__(self, stream: Stream, *, is_cut: bool) -> None:
        self._stream = stream
        self._is_cut = is_cut
        self._parts: list[tuple[bytes, list[tuple[int, float]]]] = []

    async def read(self, pause: float) -> Journal:
        await asyncio.sleep(pause)
        last_id = b""
        while True:
            part = await self._read_once(last_id)
            self._parts.append(part)
            if _END in part[0]:
                return self._journal()
            last_id = (_ID.findall(part[0]) or [last_id])[-1]

    async def _read_once(self, last_id: bytes) -> tuple[bytes, list[tuple[int, float]]]:
        """Complete events; one cut off by the disconnect is left out."""
        host = urlsplit(self._stream.url)
        loop = asyncio.get_running_loop()
        transport, connection = await loop.create_connection(_Connection, str(host.hostname), host.port or 80)
        transport.write(self._request(last_id))
        try:
            async with asyncio.timeout(random.uniform(*CUT_SECONDS) if self._is_cut else None):
                await connection.over
        except TimeoutError:
            pass  # cut
        transport.abort()
        return bytes(connection.data[: connection.data.rfind(b"\n\n") + 2]), connection.marks

    def _request(self, last_id: bytes) -> bytes:
        lines = [
            f"GET {self._stream.path} HTTP/1.1",
            f"Host: {urlsplit(self._stream.url).netloc}",
            f"Authorization: Bearer {self._stream.token}",
            "Accept: text/event-stream",
        ]
        resume = [b"Last-Event-ID: " + last_id] if last_id else []
        return b"\r\n".join([line.encode() for line in lines] + resume) + b"\r\n\r\n"

    def _journal(self) -> Journal:
        numbers, delays = [], []
        for data, marks in self._parts:
            sizes = [size for size, _ in marks]
            for match in LINE.finditer(data):
                arrived = marks[bisect_left(sizes, match.end())][1]
                numbers.append(int(match[1]))
                delays.append(arrived - float(match[2]))
        return Journal(numbers, delays, len(self._parts) - 1, _END in self._parts[-1][0])


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
