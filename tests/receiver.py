"""A local HTTP server that receives webhooks: it records messages, and answers as the test decides."""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True)
class Message:
    path: str
    headers: dict[str, str]  # lower-case names
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass(frozen=True)
class Reply:
    """An answer. `how`: "answer", "hang" (no answer), "reset", or "drip" (an endless head, byte by byte)."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    how: str = "answer"


class Receiver:
    """A context manager. `reply` is called for each message; it may be replaced at any time."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.messages: list[Message] = []
        self.reply: Callable[[Message], Reply] = lambda _: Reply()
        self.closing = threading.Event()
        self._server = _Server(self)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = int(self._server.server_address[1])
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}/hooks"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.messages]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # senders that hang up are expected


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        receiver = self.server.receiver
        body = self._whole_body()
        if body is None:
            self.close_connection = True
            return
        message = Message(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        reply = receiver.reply(message)
        receiver.messages.append(message)
        self.close_connection = True
        if reply.how == "hang":
            receiver.closing.wait(30)
        elif reply.how == "reset":
            # A linger time of zero makes close() send a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif reply.how == "drip":
            self._drip()
        else:
            self._answer(reply)

    def _whole_body(self) -> bytes | None:
        """The body; None if the sender disconnected before it was complete.

        An incomplete head is parsed as if it ended there, so a missing length also means an incomplete message.
        """
        length = int(self.headers.get("Content-Length", "-1"))
        body = self.rfile.read(max(length, 0))
        return body if len(body) == length else None

    def _answer(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), "Connection": "close", **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    def _drip(self) -> None:
        with contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 10_000:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                if self.server.receiver.closing.wait(0.1):
                    return

    def do_GET(self) -> None:
        self.server.receiver.messages.append(Message(self.path, {}, b""))
        self._answer(Reply(200))

    def log_message(self, format: str, *args: Any) -> None:
        pass
