"""A very cheap client: raw sockets, each with one buffer that is overwritten again and again.

The client shares the machine with what it measures, so it runs in its own process and keeps nothing.
"""

import hashlib
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

BUFFER_BYTES = 1024 * 1024
SILENCE_SECONDS = 30


class RequestRefusedError(Exception):
    """The server did not send the requested content, or not all of it."""


@dataclass(frozen=True)
class Request:
    """What to download from a local server, and how many times in parallel; `size` bytes are expected of each."""

    port: int
    path: str
    size: int
    headers: Mapping[str, str] = field(default_factory=dict)
    parallel: int = 1


def fetch(request: Request) -> float:
    """Seconds until everything has arrived. Raises RequestRefusedError."""
    began = time.perf_counter()
    if request.parallel == 1:
        _fetch(request)
    else:
        with ThreadPoolExecutor(request.parallel) as pool:
            list(pool.map(lambda _: _fetch(request), range(request.parallel)))
    return time.perf_counter() - began


def sha256(request: Request) -> str:
    """The digest of the downloaded content. Raises RequestRefusedError."""
    digest = hashlib.sha256()
    _fetch(request, digest)
    return digest.hexdigest()


def _fetch(request: Request, digest: "hashlib._Hash | None" = None) -> None:
    buffer = bytearray(BUFFER_BYTES)
    view = memoryview(buffer)
    with socket.create_connection(("127.0.0.1", request.port), timeout=SILENCE_SECONDS) as wire:
        wire.sendall(_head(request))
        filled = 0
        while (end := buffer.find(b"\r\n\r\n", 0, filled)) < 0:
            filled += _received(wire, view[filled:])
        status = bytes(view[: buffer.find(b"\r\n")]).decode()
        if status.split()[1] not in ("200", "206"):
            raise RequestRefusedError(status)
        part = view[end + 4 : filled]
        left = request.size - len(part)
        while left >= 0:
            if digest:
                digest.update(part)
            if not left:
                return
            part = view[: _received(wire, view)]
            left -= len(part)
        raise RequestRefusedError("more bytes arrived than requested")


def _received(wire: socket.socket, view: memoryview) -> int:
    if not (count := wire.recv_into(view)):
        raise RequestRefusedError("the connection was closed too soon")
    return count


def _head(request: Request) -> bytes:
    lines = [f"GET {request.path} HTTP/1.1", f"Host: 127.0.0.1:{request.port}", "Connection: close"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in request.headers.items()), "\r\n"]).encode()
