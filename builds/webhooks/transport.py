"""Sends one message over HTTP to a checked address within a time limit. Knows no database."""

import contextlib
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpcore2

from builds.webhooks import guard

ANSWER_BYTES = 1024
CONNECT_SECONDS = 5.0
_PIECE_BYTES = 16_384


@dataclass(frozen=True)
class Answer:
    """A receiver's answer, or, with `status` None, why there was none: `error` is a stable code."""

    status: int | None = None
    text: str = ""
    retry_after: str = ""
    error: str = ""
    detail: str = ""

    @property
    def is_good(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def post(
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    seconds: float,
    is_ours: bool = False,
    resolver: guard.Resolver | None = None,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Send a message once. Follows no redirects, uses no proxy, and never raises for what the receiver does.

    `seconds` limits the whole call, DNS included. `is_ours`: see guard.parse.
    """
    deadline = time.monotonic() + seconds
    try:
        target = guard.parse(url, is_ours=is_ours)
        addresses = guard.addresses_of(target, seconds=min(CONNECT_SECONDS, seconds), resolver=resolver)
    except guard.UrlRefusedError as refused:
        return Answer(error=refused.code, detail=str(refused))
    except guard.UnresolvedHostError as fault:
        return Answer(error="name_not_found", detail=str(fault))
    try:
        return _exchange(target, _Pinned(addresses, deadline), headers, body, tls or _tls())
    except Exception as fault:
        if kind := _kind_of(fault):
            return Answer(error=kind, detail=str(fault).replace("\0", "")[:300])
        raise


def _exchange(
    target: guard.Target, network: "_Pinned", headers: Mapping[str, str], body: bytes, tls: ssl.SSLContext
) -> Answer:
    scheme, host, path = target.scheme.encode(), target.host.strip("[]").encode(), target.path.encode()
    url = httpcore2.URL(scheme=scheme, host=host, port=target.port, target=path)
    default = {"http": 80, "https": 443}[target.scheme]
    place = target.host + ("" if target.port == default else f":{target.port}")
    # A list keeps the order on the wire: Host comes first.
    sent: list[tuple[str, str]] = [("Host", place), *headers.items(), ("Connection", "close")]
    with (
        httpcore2.ConnectionPool(ssl_context=tls, network_backend=network, max_connections=1) as pool,
        pool.stream("POST", url, headers=sent, content=body) as response,
    ):
        received = {name.lower(): value.decode("latin-1") for name, value in response.headers}
        text = _beginning(response.iter_stream()).decode(errors="replace").replace("\0", "�")
        return Answer(status=response.status, text=text, retry_after=received.get(b"retry-after", ""))


def _beginning(pieces: Iterable[bytes]) -> bytes:
    """The first kilobyte; the rest may be endless and is not read. The status counts even if this fails."""
    found = b""
    with contextlib.suppress(httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError):
        for piece in pieces:
            found += piece
            if len(found) >= ANSWER_BYTES:
                break
    return found[:ANSWER_BYTES]


def _kind_of(fault: Exception) -> str:
    """A code for why there was no answer; empty if neither the receiver nor the network is the cause."""
    if isinstance(fault, httpcore2.ConnectTimeout):
        return "connect_timeout"
    if isinstance(fault, httpcore2.TimeoutException):
        return "timeout"
    if isinstance(fault, httpcore2.ConnectError):
        return "tls_failed" if isinstance(fault.__cause__ or fault.__context__, ssl.SSLError) else "connection_failed"
    if isinstance(fault, httpcore2.NetworkError):
        return "connection_lost"
    return "bad_answer" if isinstance(fault, httpcore2.ProtocolError) else ""


@cache
def _tls() -> ssl.SSLContext:
    """The machine's certificate authorities; SSL_CERT_FILE names others."""
    return ssl.create_default_context()


# --- The network: connections to the checked addresses alone, each step within the time that is left ----------------


class _Pinned(httpcore2.NetworkBackend):
    """Connects to the checked addresses, even if the URL's name resolves differently by now.

    The name is still used for the certificate and the Host header.
    """

    def __init__(self, addresses: list[str], deadline: float) -> None:
        self._addresses, self._deadline = addresses, deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        fault: Exception = httpcore2.ConnectError("there is no address")
        for address in self._addresses:
            patience = min(CONNECT_SECONDS, self._deadline - time.monotonic())
            if patience <= 0:
                raise httpcore2.ConnectTimeout("no connection in time")
            try:
                return _Hurried(httpcore2.SyncBackend().connect_tcp(address, port, timeout=patience), self._deadline)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as caught:
                fault = caught
        raise fault


class _Hurried(httpcore2.NetworkStream):
    """A stream with a total deadline, so that a receiver cannot hold it open by sending a byte now and then."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._left(httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _PIECE_BYTES):
            self._stream.write(buffer[start : start + _PIECE_BYTES], self._left(httpcore2.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        left = self._left(httpcore2.ConnectTimeout)
        return _Hurried(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _left(self, kind: type[Exception]) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise kind("the deadline has passed")
        return left
