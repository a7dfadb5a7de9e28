"""The only way out of the installation phase: a forward proxy on a unix socket.

That phase's container has no network interface and reaches only what the proxy at this socket allows. The proxy knows
pairs of host and port. It knows nothing of Docker, Django or package managers, never looks inside a tunnel, and records
nothing about a request except its pair.
"""

import asyncio
import contextlib
import os
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self

from builds.sandbox.proxy_heads import (
    Request,
    RequestRefusedError,
    Upstream,
    ask_upstream,
    end_to_end,
    has_body,
    normalise,
    parse_request,
    parse_upstream,
    read_answer,
    read_head,
    render_head,
    render_request,
)
from builds.sandbox.relay import CHUNK_BYTES, Relay

SOCKET_NAME = "proxy.sock"
SOCKET_PATH_BYTES = 107  # sun_path holds 108 bytes, the last of them NUL: unix(7)
REPORT_ENTRIES = 200
OTHERS = "(others)"

_BACKLOG = 1024  # with a full backlog, a non-blocking connect to a unix socket fails rather than waits
_LINGER_SECONDS = 1.0


@dataclass(frozen=True, order=True)
class EgressEntry:
    """How many requests there were for one pair, and whether they were allowed. `OTHERS` has port 0."""

    host: str
    port: int
    allowed: bool
    count: int


@dataclass(frozen=True)
class _Running:
    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[None]
    thread: threading.Thread
    listener: socket.socket


class _Ledger:
    """Request counts by pair, written by the proxy's thread and read by others. Its size is limited."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, int, bool]] = Counter()
        self._lock = threading.Lock()

    def record(self, host: str, port: int, *, allowed: bool) -> None:
        key = (host, port, allowed)
        with self._lock:
            if key not in self._counts and len(self._counts) >= REPORT_ENTRIES:
                key = (OTHERS, 0, allowed)
            self._counts[key] += 1

    def entries(self) -> list[EgressEntry]:
        with self._lock:
            return sorted(EgressEntry(*key, count) for key, count in self._counts.items())


class EgressProxy:
    """A CONNECT and plain-HTTP proxy on `folder`/proxy.sock that reaches the pairs in `allowed` and nothing else.

    `allowed` holds (host, port); hosts match exactly, except for case and a trailing dot, and an address matches only
    a listed address. `max_connections` are served at a time, others wait. Time-outs are in seconds: a connection is
    closed after `idle_timeout` without traffic, a request's head must arrive within `head_timeout`, and resolving and
    connecting to all addresses together may take `connect_timeout`. HTTPS_PROXY, HTTP_PROXY and NO_PROXY are honoured.

    Only the proxy uses the folder: `start` creates it and `stop` removes it. Runs in one daemon thread of the process
    that called `start`. Raises ValueError if the socket's path is too long or an upstream proxy's address is invalid.
    """

    def __init__(
        self,
        *,
        folder: Path,
        allowed: frozenset[tuple[str, int]],
        max_connections: int = 128,
        idle_timeout: float = 120.0,
        head_timeout: float = 10.0,
        connect_timeout: float = 10.0,
    ) -> None:
        self._path = folder / SOCKET_NAME
        if (size := len(os.fsencode(self._path))) > SOCKET_PATH_BYTES:
            raise ValueError(
                f"{self._path} has {size} bytes; a unix socket's path may have at most {SOCKET_PATH_BYTES}"
            )
        self._allowed = frozenset((normalise(host), port) for host, port in allowed)
        self._max_connections = max_connections
        self._idle_timeout = idle_timeout
        self._head_timeout = head_timeout
        self._connect_timeout = connect_timeout
        self._environment = urllib.request.getproxies()
        self._upstreams = {
            scheme: parse_upstream(self._environment[scheme])
            for scheme in ("http", "https")
            if self._environment.get(scheme)
        }
        self._ledger = _Ledger()
        self._running: _Running | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Listen and serve in a thread; clients can connect once this returns. Raises OSError, RuntimeError."""
        if self._running:
            raise RuntimeError("the proxy is already running")
        listener = self._listen()
        loop = asyncio.new_event_loop()
        task = loop.create_task(self._serve(listener))
        thread = threading.Thread(target=_run, args=(loop, task), name="chef-egress", daemon=True)
        self._running = _Running(loop, task, thread, listener)
        thread.start()

    def stop(self) -> None:
        """Close all connections at once and remove the socket and its folder. Does nothing if not running."""
        if (running := self._running) is None:
            return
        self._running = None
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(RuntimeError):  # the loop has already ended
            running.loop.call_soon_threadsafe(running.task.cancel)
        running.thread.join()
        running.listener.close()
        with contextlib.suppress(OSError):  # it contains something that is not ours
            self._path.parent.rmdir()

    def report(self) -> list[EgressEntry]:
        """The requests so far, sorted; beyond the first 200 pairs they are counted as `OTHERS`."""
        return self._ledger.entries()

    def _listen(self) -> socket.socket:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.parent.chmod(0o711)  # the container's user needs to traverse it, but not to list it
        self._path.unlink(missing_ok=True)  # left by a killed worker
        listener = socket.socket(socket.AF_UNIX)
        listener.setblocking(False)
        listener.bind(str(self._path))
        self._path.chmod(0o666)  # connecting to a unix socket needs write permission
        listener.listen(_BACKLOG)
        return listener

    async def _serve(self, listener: socket.socket) -> None:
        slots = asyncio.Semaphore(self._max_connections)
        tasks: dict[asyncio.Task[None], socket.socket] = {}

        def finish(task: asyncio.Task[None]) -> None:
            tasks.pop(task).close()  # here, because a task cancelled before its first step never runs a `finally`
            slots.release()

        try:
            while await slots.acquire():
                client = await _accept(listener)
                task = asyncio.create_task(self._handle(client))
                tasks[task] = client
                task.add_done_callback(finish)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _handle(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client has gone, so it needs no answer
            try:
                head, early = await self._request_head(client)
                request = parse_request(head)
                self._admit(request)
                await (self._fetch(client, request) if request.path else self._tunnel(client, request, early))
            except RequestRefusedError as refused:
                await asyncio.get_running_loop().sock_sendall(client, refused.render())
            await _linger(client)

    async def _request_head(self, client: socket.socket) -> tuple[bytes, bytes]:
        try:
            async with asyncio.timeout(self._head_timeout):
                return await read_head(client)
        except TimeoutError:
            reason = f"the request's head did not arrive within {self._head_timeout:g} s"
            raise RequestRefusedError(HTTPStatus.REQUEST_TIMEOUT, reason) from None

    def _admit(self, request: Request) -> None:
        allowed = (request.host, request.port) in self._allowed
        self._ledger.record(request.host, request.port, allowed=allowed)
        if not allowed:
            raise RequestRefusedError(HTTPStatus.FORBIDDEN, f"{request.pair} is not on the list of package registries")
        if request.path and (request.method not in ("GET", "HEAD") or has_body(request.headers)):
            reason = "over plain http only GET and HEAD without a body are allowed; use https"
            raise RequestRefusedError(HTTPStatus.METHOD_NOT_ALLOWED, reason)

    async def _tunnel(self, client: socket.socket, request: Request, early: bytes) -> None:
        loop = asyncio.get_running_loop()
        server, upstream = await self._reach(request, "https")
        with server:
            async with _reaching(request.pair, self._connect_timeout):
                greeting = await ask_upstream(server, request.pair, upstream) if upstream else b""
            await loop.sock_sendall(client, b"HTTP/1.1 200 Connection established\r\n\r\n" + greeting)
            await loop.sock_sendall(server, early)
            await Relay(idle=self._idle_timeout).run((client, server), (server, client))

    async def _fetch(self, client: socket.socket, request: Request) -> None:
        """One request and its answer. Later requests are not forwarded: each needs a new connection and a new check."""
        loop = asyncio.get_running_loop()
        server, upstream = await self._reach(request, "http")
        with server:
            async with _reaching(request.pair, self._idle_timeout):
                await loop.sock_sendall(server, render_request(request, upstream))
                first, headers, early = await read_answer(server)
            head = render_head(first, [*end_to_end(headers), (b"Connection", b"close")])
            await loop.sock_sendall(client, head + early)
            await Relay(idle=self._idle_timeout).run((server, client))

    async def _reach(self, request: Request, scheme: str) -> tuple[socket.socket, Upstream | None]:
        upstream = None
        if not urllib.request.proxy_bypass(request.pair, self._environment):
            upstream = self._upstreams.get(scheme)
        async with _reaching("the upstream proxy" if upstream else request.pair, self._connect_timeout):
            return await _dial(upstream or request, seconds=self._connect_timeout), upstream


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()  # unlike asyncio.run, does not wait for pending name look-ups


async def _accept(listener: socket.socket) -> socket.socket:
    """Replaces asyncio's sock_accept, which can lose a connection without closing it when cancelled."""
    while True:
        try:
            client, _ = listener.accept()
            client.setblocking(False)
            return client
        except BlockingIOError:
            await _readable(listener)
        except OSError:  # out of file descriptors: wait for a tunnel to end
            await asyncio.sleep(0.1)


async def _readable(listener: socket.socket) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(listener, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(listener)


async def _linger(client: socket.socket) -> None:
    """Half-close, then keep reading briefly: closing with unread bytes would reset a client that is still reading."""
    client.shutdown(socket.SHUT_WR)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while await asyncio.get_running_loop().sock_recv(client, CHUNK_BYTES):
                await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def _reaching(pair: str, seconds: float) -> AsyncIterator[None]:
    """Turns a failure to reach the other side into an answer for the client."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise RequestRefusedError(HTTPStatus.BAD_GATEWAY, f"{pair} did not respond within {seconds:g} s") from None
    except (OSError, UnicodeError) as error:
        raise RequestRefusedError(HTTPStatus.BAD_GATEWAY, f"{pair} cannot be reached: {_reason(error)}") from None


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return "the host name is invalid"
    if isinstance(error, socket.gaierror) or error.errno is None:
        return error.strerror or "the connection broke"
    return os.strerror(error.errno)  # asyncio puts the address into strerror; the build must not see it


async def _dial(to: Request | Upstream, *, seconds: float) -> socket.socket:
    """Connect to the first address that responds. Each gets an equal share of the remaining time, so that one that
    drops packets does not use it up."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    fault = OSError()
    places = await loop.getaddrinfo(to.host, to.port, type=socket.SOCK_STREAM)
    for left, (family, kind, protocol, _, address) in zip(range(len(places), 0, -1), places, strict=True):
        server = socket.socket(family, kind, protocol)
        try:
            async with asyncio.timeout((deadline - loop.time()) / left):
                return await _connect(server, address)
        except OSError as error:
            fault = error
    raise fault


async def _connect(server: socket.socket, address: tuple[str | int | bytes, ...]) -> socket.socket:
    try:
        server.setblocking(False)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # small handshake messages must not be delayed
        await asyncio.get_running_loop().sock_connect(server, address)
    except BaseException:
        server.close()
        raise
    return server
