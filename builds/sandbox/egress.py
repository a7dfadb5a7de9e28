"""The only way out of the installation phase: a forward proxy on a unix socket.

The container of that phase has no network interface; it reaches what the other end of this socket lets it reach. The
proxy knows pairs of host and port. It knows nothing of Docker, Django or package managers, never looks inside a tunnel,
and logs and keeps nothing of a request but the pair it named.
"""

import asyncio
import base64
import contextlib
import ipaddress
import os
import re
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
from urllib.parse import unquote, urlsplit

SOCKET_NAME = "proxy.sock"
SOCKET_PATH_BYTES = 107  # sun_path holds 108 bytes, the last of them NUL: unix(7)
HEAD_BYTES = 16 * 1024
CHUNK_BYTES = 64 * 1024
REPORT_ENTRIES = 200
OTHERS = "(others)"

_BACKLOG = 1024  # to a non-blocking connect on a unix socket a full backlog is an error, not a wait
_LINGER_SECONDS = 1.0
_REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) ([\x21-\x7e\x80-\xff]+) (HTTP/1\.[01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\x00\r\n]*)?")
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00\r\n]*)")
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9A-Za-z_.-]{1,254}))(?::([0-9]{1,5}))?")
_PLAIN_URL = re.compile(r"http://([^/?#]*)([^#]*)", re.IGNORECASE)
_HOP_HEADERS = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer upgrade".split()
)

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, order=True)
class EgressEntry:
    """How many requests named one pair, and whether they were let through. Port 0 is that of `OTHERS`."""

    host: str
    port: int
    allowed: bool
    count: int


@dataclass(frozen=True)
class _Request:
    method: str
    host: str
    port: int
    path: str  # empty for CONNECT
    version: bytes
    headers: Headers

    @property
    def pair(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class _Upstream:
    """A proxy that this machine itself has to go through; `headers` hold its credentials, if it wants any."""

    host: str
    port: int
    headers: Headers


@dataclass(frozen=True)
class _Running:
    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[None]
    thread: threading.Thread
    listener: socket.socket


class _Refused(Exception):
    """The answer to a request that goes nowhere."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason

    def render(self) -> bytes:
        body = f"chef: {self.reason}\n".encode()
        head = f"HTTP/1.1 {self.status} {self.status.phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


class _Ledger:
    """Counts of pairs, written by the proxy's thread and read by others. A build cannot make it grow without end."""

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

    `allowed` holds (host, port); hosts match exactly, whatever their case or trailing dot, and an address matches only
    an address that is listed. `max_connections` are served at a time, more wait. Time-outs are in seconds: a connection
    is closed when nothing moved for `idle_timeout`, a request's head must arrive within `head_timeout`, and resolving
    and connecting, all addresses together, get `connect_timeout`. HTTPS_PROXY, HTTP_PROXY and NO_PROXY are honoured.

    The folder belongs to the proxy alone: it is made by `start` and removed by `stop`. Runs in one daemon thread of the
    process that called `start`. Raises ValueError when the socket's path is too long, or an upstream proxy's address
    is not one that can be used.
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
            raise ValueError(f"{self._path} takes {size} bytes; a unix socket's path has room for {SOCKET_PATH_BYTES}")
        self._allowed = frozenset((_normalise(host), port) for host, port in allowed)
        self._max_connections = max_connections
        self._idle_timeout = idle_timeout
        self._head_timeout = head_timeout
        self._connect_timeout = connect_timeout
        self._environment = urllib.request.getproxies()
        self._upstreams = {
            scheme: _parse_upstream(self._environment[scheme])
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
        """Listen, then serve from a thread; clients can connect once this returns. Raises OSError, RuntimeError."""
        if self._running:
            raise RuntimeError("the proxy is already running")
        listener = self._listen()
        loop = asyncio.new_event_loop()
        task = loop.create_task(self._serve(listener))
        thread = threading.Thread(target=_run, args=(loop, task), name="chef-egress", daemon=True)
        self._running = _Running(loop, task, thread, listener)
        thread.start()

    def stop(self) -> None:
        """Close every connection at once and remove the socket and its folder. Does nothing when not running."""
        if (running := self._running) is None:
            return
        self._running = None
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            running.loop.call_soon_threadsafe(running.task.cancel)
        running.thread.join()
        running.listener.close()
        with contextlib.suppress(OSError):  # something that is not ours is in it
            self._path.parent.rmdir()

    def report(self) -> list[EgressEntry]:
        """What was asked for so far, sorted; after the first 200 pairs the rest are counted under `OTHERS`."""
        return self._ledger.entries()

    def _listen(self) -> socket.socket:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.parent.chmod(0o711)  # the container's user must pass through, and need not list
        self._path.unlink(missing_ok=True)  # left by a worker that was killed
        listener = socket.socket(socket.AF_UNIX)
        listener.setblocking(False)
        listener.bind(str(self._path))
        self._path.chmod(0o666)  # to connect to a unix socket is to write to it
        listener.listen(_BACKLOG)
        return listener

    async def _serve(self, listener: socket.socket) -> None:
        slots = asyncio.Semaphore(self._max_connections)
        tasks: dict[asyncio.Task[None], socket.socket] = {}

        def finish(task: asyncio.Task[None]) -> None:
            tasks.pop(task).close()  # here, because a task that is cancelled before its first step runs no `finally`
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
        with contextlib.suppress(OSError):  # the client has gone, so there is nobody to tell
            try:
                head, early = await self._request_head(client)
                request = _parse_request(head)
                self._admit(request)
                await (self._fetch(client, request) if request.path else self._tunnel(client, request, early))
            except _Refused as refused:
                await asyncio.get_running_loop().sock_sendall(client, refused.render())
            await _linger(client)

    async def _request_head(self, client: socket.socket) -> tuple[bytes, bytes]:
        try:
            async with asyncio.timeout(self._head_timeout):
                return await _read_head(client)
        except TimeoutError:
            reason = f"the request's head did not arrive within {self._head_timeout:g} s"
            raise _Refused(HTTPStatus.REQUEST_TIMEOUT, reason) from None

    def _admit(self, request: _Request) -> None:
        allowed = (request.host, request.port) in self._allowed
        self._ledger.record(request.host, request.port, allowed=allowed)
        if not allowed:
            raise _Refused(HTTPStatus.FORBIDDEN, f"{request.pair} is not on the list of package registries")
        if request.path and (request.method not in ("GET", "HEAD") or _announces_body(request.headers)):
            reason = "over plain http only GET and HEAD without a body are carried; use https"
            raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, reason)

    async def _tunnel(self, client: socket.socket, request: _Request, early: bytes) -> None:
        loop = asyncio.get_running_loop()
        server, upstream = await self._reach(request, "https")
        with server:
            async with _reaching(request.pair, self._connect_timeout):
                greeting = await _ask_upstream(server, request.pair, upstream) if upstream else b""
            await loop.sock_sendall(client, b"HTTP/1.1 200 Connection established\r\n\r\n" + greeting)
            await loop.sock_sendall(server, early)
            await _Relay(idle=self._idle_timeout).run((client, server), (server, client))

    async def _fetch(self, client: socket.socket, request: _Request) -> None:
        """One request and its answer. What the client says after it is not carried: a new connection, a new check."""
        loop = asyncio.get_running_loop()
        server, upstream = await self._reach(request, "http")
        with server:
            async with _reaching(request.pair, self._idle_timeout):
                await loop.sock_sendall(server, _render_request(request, upstream))
                first, headers, early = await _read_answer(server)
            head = _render_head(first, [*_end_to_end(headers), (b"Connection", b"close")])
            await loop.sock_sendall(client, head + early)
            await _Relay(idle=self._idle_timeout).run((server, client))

    async def _reach(self, request: _Request, scheme: str) -> tuple[socket.socket, _Upstream | None]:
        upstream = None
        if not urllib.request.proxy_bypass(request.pair, self._environment):
            upstream = self._upstreams.get(scheme)
        async with _reaching("the upstream proxy" if upstream else request.pair, self._connect_timeout):
            return await _dial(upstream or request, seconds=self._connect_timeout), upstream


class _Relay:
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


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()  # unlike asyncio.run, waits for no name that is still being resolved


async def _accept(listener: socket.socket) -> socket.socket:
    """Not asyncio's sock_accept: that one, cancelled at the wrong moment, loses a connection without closing it."""
    while True:
        try:
            client, _ = listener.accept()
            client.setblocking(False)
            return client
        except BlockingIOError:
            await _readable(listener)
        except OSError:  # no file descriptor is free: one will be when a tunnel ends
            await asyncio.sleep(0.1)


async def _readable(listener: socket.socket) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(listener, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(listener)


async def _linger(client: socket.socket) -> None:
    """Half-close, then read on for a moment: closing over unread bytes would reset a client that has yet to read."""
    client.shutdown(socket.SHUT_WR)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while await asyncio.get_running_loop().sock_recv(client, CHUNK_BYTES):
                await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def _reaching(pair: str, seconds: float) -> AsyncIterator[None]:
    """Turns the ways in which the other side can be out of reach into the answer for the client."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise _Refused(HTTPStatus.BAD_GATEWAY, f"{pair} gave no answer within {seconds:g} s") from None
    except (OSError, UnicodeError) as error:
        raise _Refused(HTTPStatus.BAD_GATEWAY, f"{pair} cannot be reached: {_reason(error)}") from None


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return "no name server can be asked for such a name"
    if isinstance(error, socket.gaierror) or error.errno is None:
        return error.strerror or "the connection broke"
    return os.strerror(error.errno)  # asyncio puts the address into strerror: the build need not learn it


async def _dial(to: _Request | _Upstream, *, seconds: float) -> socket.socket:
    """Connect to the first address that answers. Each gets a fair share of the time left, so that one which swallows
    packets leaves some to the next."""
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
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # handshakes are small and each side waits
        await asyncio.get_running_loop().sock_connect(server, address)
    except BaseException:
        server.close()
        raise
    return server


async def _ask_upstream(server: socket.socket, pair: str, upstream: _Upstream) -> bytes:
    """Have the upstream proxy open the tunnel. Returns what the far end said already."""
    head = _render_head(f"CONNECT {pair} HTTP/1.1".encode(), [(b"Host", pair.encode()), *upstream.headers])
    await asyncio.get_running_loop().sock_sendall(server, head)
    first, _, greeting = await _read_answer(server)
    if (status := first.split()[1].decode())[0] != "2":
        raise _Refused(HTTPStatus.BAD_GATEWAY, f"the upstream proxy answered {status} for {pair}")
    return greeting


def _parse_upstream(url: str) -> _Upstream:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    with contextlib.suppress(ValueError):  # the port is no number
        if parts.scheme == "http" and parts.hostname:
            return _Upstream(parts.hostname, parts.port or 80, _credentials(parts.username, parts.password))
    raise ValueError("HTTP_PROXY and HTTPS_PROXY must look like http://host:port")  # not shown: it may hold a password


def _credentials(user: str | None, password: str | None) -> Headers:
    if user is None:
        return []
    word = base64.b64encode(f"{unquote(user)}:{unquote(password or '')}".encode())
    return [(b"Proxy-Authorization", b"Basic " + word)]


async def _read_head(peer: socket.socket, early: bytes = b"") -> tuple[bytes, bytes]:
    """The head up to its empty line, and what came along behind it. Raises ConnectionError when nothing came at all."""
    received = bytearray(early)
    while (end := received.find(b"\r\n\r\n")) < 0:
        if len(received) >= HEAD_BYTES:
            reason = f"the head is longer than {HEAD_BYTES} bytes"
            raise _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, reason)
        if not (part := await asyncio.get_running_loop().sock_recv(peer, HEAD_BYTES - len(received))):
            if not received:
                raise ConnectionError
            raise _Refused(HTTPStatus.BAD_REQUEST, "the head ends before its empty line")
        received += part
    return bytes(received[:end]), bytes(received[end + 4 :])


async def _read_answer(server: socket.socket) -> tuple[bytes, Headers, bytes]:
    """Status line, headers, and what came behind them of a server's first answer that is not an interim (1xx) one."""
    try:
        head, early = await _read_head(server)
        while head.startswith((b"HTTP/1.1 1", b"HTTP/1.0 1")):
            head, early = await _read_head(server, early)
        first, *rest = head.split(b"\r\n")
        if _STATUS_LINE.fullmatch(first):
            return first, _parse_headers(rest), early
    except _Refused:  # its status blames the client
        pass
    raise _Refused(HTTPStatus.BAD_GATEWAY, "the head of the server's answer cannot be read")


def _parse_request(head: bytes) -> _Request:
    first, *rest = head.split(b"\r\n")
    if not (line := _REQUEST_LINE.fullmatch(first)):
        raise _Refused(HTTPStatus.BAD_REQUEST, "the request line is malformed")
    method, target, version = line[1].decode(), line[2].decode("latin-1"), line[3]
    headers = _parse_headers(rest)
    if method == "CONNECT":
        return _Request(method, *_parse_authority(target), "", version, headers)
    if not (url := _PLAIN_URL.fullmatch(target)):
        raise _Refused(HTTPStatus.BAD_REQUEST, "this is a proxy: ask for CONNECT host:port or http://host/path")
    path = url[2] if url[2].startswith("/") else f"/{url[2]}"
    return _Request(method, *_parse_authority(url[1], default_port=80), path, version, headers)


def _parse_headers(lines: list[bytes]) -> Headers:
    headers = []
    for line in lines:
        if not (match := _HEADER_LINE.fullmatch(line)):
            raise _Refused(HTTPStatus.BAD_REQUEST, "a header line is malformed")
        headers.append((match[1], match[2].strip()))
    return headers


def _announces_body(headers: Headers) -> bool:
    fields = {name.lower(): value for name, value in headers}
    return b"transfer-encoding" in fields or fields.get(b"content-length", b"0") != b"0"


def _parse_authority(text: str, *, default_port: int = 0) -> tuple[str, int]:
    """Only what a host name or an address is written with passes: the pair is shown to people later."""
    if match := _AUTHORITY.fullmatch(text):
        host = _normalise(match[1] or match[2])
        port = int(match[3] or default_port)
        if host and (match[1] is None or ":" in host) and 0 < port < 65536:
            return host, port
    raise _Refused(HTTPStatus.BAD_REQUEST, "the address is not host:port")


def _normalise(host: str) -> str:
    host = host.lower().strip("[]").removesuffix(".")
    try:
        return ipaddress.ip_address(host).compressed
    except ValueError:
        return host


def _render_request(request: _Request, upstream: _Upstream | None) -> bytes:
    host = request.pair.removesuffix(":80")
    target = f"http://{host}{request.path}" if upstream else request.path
    first = b" ".join([request.method.encode(), target.encode("latin-1"), request.version])
    kept = [(name, value) for name, value in _end_to_end(request.headers) if name.lower() != b"host"]
    added = [*(upstream.headers if upstream else []), (b"Connection", b"close")]
    return _render_head(first, [(b"Host", host.encode()), *kept, *added])


def _end_to_end(headers: Headers) -> Headers:
    """Without those that concern one connection only: RFC 9110, section 7.6.1. The body passes as it is framed."""
    named = b",".join(value for name, value in headers if name.lower() == b"connection").lower().split(b",")
    dropped = _HOP_HEADERS.union(token.strip() for token in named) - {b"transfer-encoding", b"content-length"}
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def _render_head(first: bytes, headers: Headers) -> bytes:
    return b"\r\n".join([first, *(name + b": " + value for name, value in headers), b"", b""])
