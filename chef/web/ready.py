"""Answers that are known whole for a moment: the web server's protocol sends them itself, without a task and Django.

`uvicorn --http chef.web.ready:ReadyProtocol`. Whoever has answered a request in the usual way may keep the answer
here for the same requests to come. Knows nothing of what is sent, and imports nothing of
Django: it is loaded before that.
"""

import time
from typing import NamedTuple

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Headers = list[tuple[bytes, bytes]]

MAX_ANSWERS, MAX_BYTES = 4_096, 32 * 1024**2
# What asks for more than the whole, now, or says that there is a body: that goes the usual way.
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
    """What two requests have in common that get the same answer."""

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
    """The key of a GET; None for one that has to go the usual way."""
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
    """Have a request with the key answered so, with status 200, until a moment of the monotonic clock."""
    global _kept_bytes
    if len(_answers) >= MAX_ANSWERS or _kept_bytes + len(body) > MAX_BYTES:
        forget()
    if (before := _answers.pop(key, None)) is not None:
        _kept_bytes -= len(before.body)
    _kept_bytes += len(body)
    head = b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n"
    _answers[key] = _Answer(until, head, body)


def forget() -> None:
    """All of them: something has changed."""
    global _kept_bytes
    _answers.clear()
    _kept_bytes = 0


class ReadyProtocol(HttpToolsProtocol):
    """uvicorn's, which looks here before it starts a task."""

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
