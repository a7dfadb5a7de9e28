"""The heads of requests and responses, as the egress proxy reads and writes them: the part of HTTP/1.1 it needs.

Knows sockets and bytes, but not which pairs are allowed.
"""

import asyncio
import base64
import contextlib
import ipaddress
import re
import socket
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

HEAD_BYTES = 16 * 1024

_REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) ([\x21-\x7e\x80-\xff]+) (HTTP/1\.[01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\x00\r\n]*)?")
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00\r\n]*)")
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9A-Za-z_.-]{1,254}))(?::([0-9]{1,5}))?")
_PLAIN_URL = re.compile(r"http://([^/?#]*)([^#]*)", re.IGNORECASE)
_HOP_HEADERS = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer upgrade".split()
)

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Request:
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
class Upstream:
    """A proxy that this machine itself has to use; `headers` hold its credentials, if it needs any."""

    host: str
    port: int
    headers: Headers


class RequestRefusedError(Exception):
    """The response to a request that is not forwarded."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason

    def render(self) -> bytes:
        body = f"chef: {self.reason}\n".encode()
        head = f"HTTP/1.1 {self.status} {self.status.phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


async def ask_upstream(server: socket.socket, pair: str, upstream: Upstream) -> bytes:
    """Ask the upstream proxy to open the tunnel. Returns what the server has already sent."""
    head = render_head(f"CONNECT {pair} HTTP/1.1".encode(), [(b"Host", pair.encode()), *upstream.headers])
    await asyncio.get_running_loop().sock_sendall(server, head)
    first, _, greeting = await read_answer(server)
    if (status := first.split()[1].decode())[0] != "2":
        raise RequestRefusedError(HTTPStatus.BAD_GATEWAY, f"the upstream proxy answered {status} for {pair}")
    return greeting


def parse_upstream(url: str) -> Upstream:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    with contextlib.suppress(ValueError):  # the port is not a number
        if parts.scheme == "http" and parts.hostname:
            return Upstream(parts.hostname, parts.port or 80, _credentials(parts.username, parts.password))
    raise ValueError(
        "HTTP_PROXY and HTTPS_PROXY must look like http://host:port"
    )  # not shown: it may contain a password


def _credentials(user: str | None, password: str | None) -> Headers:
    if user is None:
        return []
    word = base64.b64encode(f"{unquote(user)}:{unquote(password or '')}".encode())
    return [(b"Proxy-Authorization", b"Basic " + word)]


async def read_head(peer: socket.socket, early: bytes = b"") -> tuple[bytes, bytes]:
    """The head up to its empty line, and the bytes received after it. Raises ConnectionError if nothing arrived."""
    received = bytearray(early)
    while (end := received.find(b"\r\n\r\n")) < 0:
        if len(received) >= HEAD_BYTES:
            reason = f"the head is longer than {HEAD_BYTES} bytes"
            raise RequestRefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, reason)
        if not (part := await asyncio.get_running_loop().sock_recv(peer, HEAD_BYTES - len(received))):
            if not received:
                raise ConnectionError
            raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "the head ends before its empty line")
        received += part
    return bytes(received[:end]), bytes(received[end + 4 :])


async def read_answer(server: socket.socket) -> tuple[bytes, Headers, bytes]:
    """Status line, headers and the bytes received after them of a server's first response that is not 1xx."""
    try:
        head, early = await read_head(server)
        while head.startswith((b"HTTP/1.1 1", b"HTTP/1.0 1")):
            head, early = await read_head(server, early)
        first, *rest = head.split(b"\r\n")
        if _STATUS_LINE.fullmatch(first):
            return first, _parse_headers(rest), early
    except RequestRefusedError:  # its status would blame the client
        pass
    raise RequestRefusedError(HTTPStatus.BAD_GATEWAY, "the head of the server's response is malformed")


def parse_request(head: bytes) -> Request:
    first, *rest = head.split(b"\r\n")
    if not (line := _REQUEST_LINE.fullmatch(first)):
        raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "the request line is malformed")
    method, target, version = line[1].decode(), line[2].decode("latin-1"), line[3]
    headers = _parse_headers(rest)
    if method == "CONNECT":
        return Request(method, *_parse_authority(target), "", version, headers)
    if not (url := _PLAIN_URL.fullmatch(target)):
        raise RequestRefusedError(
            HTTPStatus.BAD_REQUEST, "this is a proxy: ask for CONNECT host:port or http://host/path"
        )
    path = url[2] if url[2].startswith("/") else f"/{url[2]}"
    return Request(method, *_parse_authority(url[1], default_port=80), path, version, headers)


def _parse_headers(lines: list[bytes]) -> Headers:
    headers = []
    for line in lines:
        if not (match := _HEADER_LINE.fullmatch(line)):
            raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "a header line is malformed")
        headers.append((match[1], match[2].strip()))
    return headers


def has_body(headers: Headers) -> bool:
    fields = {name.lower(): value for name, value in headers}
    return b"transfer-encoding" in fields or fields.get(b"content-length", b"0") != b"0"


def _parse_authority(text: str, *, default_port: int = 0) -> tuple[str, int]:
    """Accept only characters of host names and addresses: the pair is shown to users later."""
    if match := _AUTHORITY.fullmatch(text):
        host = normalise(match[1] or match[2])
        port = int(match[3] or default_port)
        if host and (match[1] is None or ":" in host) and 0 < port < 65536:
            return host, port
    raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "the address is not host:port")


def normalise(host: str) -> str:
    host = host.lower().strip("[]").removesuffix(".")
    try:
        return ipaddress.ip_address(host).compressed
    except ValueError:
        return host


def render_request(request: Request, upstream: Upstream | None) -> bytes:
    host = request.pair.removesuffix(":80")
    target = f"http://{host}{request.path}" if upstream else request.path
    first = b" ".join([request.method.encode(), target.encode("latin-1"), request.version])
    kept = [(name, value) for name, value in end_to_end(request.headers) if name.lower() != b"host"]
    added = [*(upstream.headers if upstream else []), (b"Connection", b"close")]
    return render_head(first, [(b"Host", host.encode()), *kept, *added])


def end_to_end(headers: Headers) -> Headers:
    """Headers without the hop-by-hop ones: RFC 9110, section 7.6.1. The body is forwarded with its framing."""
    named = b",".join(value for name, value in headers if name.lower() == b"connection").lower().split(b",")
    dropped = _HOP_HEADERS.union(token.strip() for token in named) - {b"transfer-encoding", b"content-length"}
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def render_head(first: bytes, headers: Headers) -> bytes:
    return b"\r\n".join([first, *(name + b": " + value for name, value in headers), b"", b""])
