"""The two ends of the egress proxy: clients of its socket, and servers on loopback."""

import contextlib
import hashlib
import random
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from builds.sandbox import egress
from builds.sandbox.egress import EgressProxy

BLOCK = random.Random(1).randbytes(1 << 20)
Address = tuple[str, int]
Talk = Callable[[socket.socket], None]


@contextlib.contextmanager
def listening(talk: Talk) -> Iterator[Address]:
    """A server on loopback: `talk` handles each connection in a thread."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                talk(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield "127.0.0.1", server.server_address[1]
        server.shutdown()


def echo(peer: socket.socket) -> None:
    while data := peer.recv(65536):
        peer.sendall(data)


def digest_of(peer: socket.socket) -> str:
    digest = hashlib.sha256()
    while data := peer.recv(65536):
        digest.update(data)
    return digest.hexdigest()


def answer_digest(peer: socket.socket) -> None:
    peer.sendall(digest_of(peer).encode())


def blocks(count: int) -> Iterator[bytes]:
    """`count` MiB of distinct blocks, so that a lost, repeated or misplaced one is noticed."""
    for number in range(count):
        yield number.to_bytes(8, "big") + BLOCK[8:]


def digest_of_blocks(count: int) -> str:
    digest = hashlib.sha256()
    for block in blocks(count):
        digest.update(block)
    return digest.hexdigest()


def read_head(peer: socket.socket) -> str:
    head = b""
    while not head.endswith(b"\r\n\r\n") and (byte := peer.recv(1)):
        head += byte
    return head.decode()


def read_all(peer: socket.socket) -> str:
    return b"".join(iter(lambda: peer.recv(65536), b"")).decode()


def is_closed(peer: socket.socket) -> bool:
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:  # it had not been accepted yet
        return True


class Client:
    """A client of the proxy's socket, like a package manager behind the forwarder."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / egress.SOCKET_NAME)

    def connect(self) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(10)
        peer.connect(self.path)
        return peer

    def send(self, head: str | bytes) -> str:
        """The complete response to one head."""
        with self.connect() as peer:
            peer.sendall(head.encode() if isinstance(head, str) else head)
            return read_all(peer)

    def ask(self, host: str, port: int) -> str:
        return self.send(f"CONNECT {host}:{port} HTTP/1.1\r\n\r\n")

    def tunnel(self, address: Address) -> socket.socket:
        peer = self.connect()
        peer.sendall(f"CONNECT {address[0]}:{address[1]} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert read_head(peer).startswith("HTTP/1.1 200 ")
        return peer


class Mirror:
    """A plain-http server that records requests and always sends the same response."""

    def __init__(self, answer: str) -> None:
        self.heads: list[str] = []
        self.answer = answer

    def __call__(self, peer: socket.socket) -> None:
        self.heads.append(read_head(peer))
        peer.sendall(self.answer.encode())


@contextlib.contextmanager
def proxy(client: Client, *allowed: Address, **limits: float) -> Iterator[EgressProxy]:
    folder = Path(client.path).parent
    with EgressProxy(folder=folder, allowed=frozenset(allowed), **limits) as running:  # type: ignore[arg-type]
        yield running
