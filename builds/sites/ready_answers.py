"""A cache of complete answers of published sites, which the server's protocol class sends without a task or ASGI.

`uvicorn --http builds.sites.ready_answers:ReadyProtocol`. The application may store an answer here for identical
requests that follow within a moment. Knows nothing of the content, and does not import Django, because uvicorn loads
it first. Without the option everything works, only slower.

It relies on private parts of uvicorn, because no supported way is as fast. The benchmark `sites`' files and requests,
CPU time of the web process for each request, medians of 7 alternating rounds in one run:

    | identity    | gzip    |
    | ----------- | ------- |
    | 22 µs       | 15 µs   | this module
    | 38 µs       | 34 µs   | the same cache as the first thing in the ASGI application
    | 65 µs       | 57 µs   | no such cache: builds.sites.server answers each request

tests/e2e/test_sites.py checks that it answers as uvicorn does; see docs/decisions/ready-answers.md.
"""

import time
from typing import NamedTuple

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Headers = list[tuple[bytes, bytes]]

MAX_ANSWERS, MAX_BYTES = 4_096, 32 * 1024**2
# A request with one of these asks for a part, or has a body: the application handles it.
_SPECIAL = frozenset(
    (
        b"connection",
        b"content-length",
        b"expect",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"range",
        b"transfer-encoding",
        b"upgrade",
    )
)


class Key(NamedTuple):
    """Two requests with the same key get the same answer."""

    host: bytes
    url: bytes
    codings: bytes  # Accept-Encoding
    is_page: bool  # Accept names text/html
    scheme: bytes  # X-Forwarded-Proto


class _Answer(NamedTuple):
    until: float
    head: bytes
    body: bytes


_answers: dict[Key, _Answer] = {}
_kept_bytes = 0


def key_of(headers: Headers, url: bytes) -> Key | None:
    """The key of a GET; None if the application has to handle the request."""
    host = codings = scheme = b""
    is_page = False
    for name, value in headers:
        if name == b"host":
            host = value
        elif name == b"accept-encoding":
            codings = value
        elif name == b"accept":
            is_page = b"text/html" in value
        elif name == b"x-forwarded-proto":
            scheme = value
        elif name in _SPECIAL:
            return None
    return Key(host, url, codings, is_page, scheme)


def keep(key: Key, headers: Headers, body: bytes, *, until: float) -> None:
    """Answer requests with this key, with status 200, until the given monotonic time."""
    global _kept_bytes
    if len(_answers) >= MAX_ANSWERS or _kept_bytes + len(body) > MAX_BYTES:
        forget()
    if (before := _answers.pop(key, None)) is not None:
        _kept_bytes -= len(before.body)
    _kept_bytes += len(body)
    head = b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n"
    _answers[key] = _Answer(until, head, body)


def forget() -> None:
    """Drop all answers: something has changed."""
    global _kept_bytes
    _answers.clear()
    _kept_bytes = 0


class ReadyProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which looks for an answer here before it starts a task for the application."""

    _is_answered = False

    def on_headers_complete(self) -> None:
        if _answers and self._answer_at_once():
            self._is_answered = True
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self._is_answered:
            self._is_answered = False
        else:
            super().on_message_complete()

    def _answer_at_once(self) -> bool:
        is_first = self.cycle is None or self.cycle.response_complete
        if not is_first or self.pipeline or self.flow.write_paused or self.access_log:
            return False
        if self.parser.get_method() != b"GET" or self.parser.get_http_version() != "1.1":
            return False
        key = key_of(self.headers, self.url)
        answer = None if key is None else _answers.get(key)
        if answer is None or time.monotonic() > answer.until:
            return False
        server = b"".join([b"%b: %b\r\n" % header for header in self.server_state.default_headers])
        self.transport.writelines([b"HTTP/1.1 200 OK\r\n", server, answer.head, answer.body])
        self.on_response_complete()
        return True
