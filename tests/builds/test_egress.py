"""The egress proxy over real sockets, and from a sealed container through the forwarders that run inside it."""

import base64
import contextlib
import hashlib
import itertools
import os
import random
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import docker
import psutil
import pytest
from docker.models.containers import Container

from builds.sandbox import egress
from builds.sandbox.egress import EgressEntry, EgressProxy

UID = 10001
IMAGES = {"node": "chef-runtime/node:22", "python": "chef-runtime/python:3.11"}
FORWARD = {"node": ["node", "/chef/inside/forward.mjs"], "python": ["python3", "/chef/inside/forward.py"]}
BLOCK = random.Random(1).randbytes(1 << 20)
Address = tuple[str, int]
Talk = Callable[[socket.socket], None]


# The two ends -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def listening(talk: Talk) -> Iterator[Address]:
    """A server on loopback: `talk` has each connection to itself, in a thread."""

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
    """`count` MiB, no block like another, so that one lost, doubled or out of its order is noticed."""
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
    except ConnectionResetError:  # it was still waiting to be accepted
        return True


class Client:
    """Speaks to the proxy's socket as a package manager would, behind the forwarder."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / egress.SOCKET_NAME)

    def connect(self) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(10)
        peer.connect(self.path)
        return peer

    def send(self, head: str | bytes) -> str:
        """The whole answer to one head."""
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


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, because of the limit on socket paths, and open to the container's user."""
    parent = Path(tempfile.mkdtemp(prefix="egress-"))
    parent.chmod(0o755)
    yield parent / "run"
    shutil.rmtree(parent)


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own upstream proxy, if it has one, cannot reach this test's loopback."""
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def client(folder: Path, direct: None) -> Client:
    return Client(folder)


@contextlib.contextmanager
def proxy(client: Client, *allowed: Address, **limits: float) -> Iterator[EgressProxy]:
    folder = Path(client.path).parent
    with EgressProxy(folder=folder, allowed=frozenset(allowed), **limits) as running:  # type: ignore[arg-type]
        yield running


# What is let through ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listed", "asked"),
    [("127.0.0.1", "127.0.0.1"), ("localhost", "LOCALHOST"), ("LocalHost.", "localhost"), ("localhost", "localhost.")],
)
def test_tunnel_to_listed_pair_carries_bytes_both_ways(client: Client, listed: str, asked: str) -> None:
    with listening(echo) as (_, port), proxy(client, (listed, port)) as running:
        with client.tunnel((asked, port)) as peer:
            peer.sendall(b"hello")
            answer = peer.recv(100)

        assert answer == b"hello"
        assert running.report() == [EgressEntry(listed.lower().removesuffix("."), port, allowed=True, count=1)]


@pytest.mark.parametrize(
    ("host", "port_shift"),
    [("127.0.0.1", 0), ("localhost", 1), ("xlocalhost", 0), ("localhost.evil", 0), ("2130706433", 0), ("[::1]", 0)],
)
def test_pair_off_the_list_is_refused_and_told_apart(client: Client, host: str, port_shift: int) -> None:
    reached: list[socket.socket] = []
    with listening(reached.append) as (_, port), proxy(client, ("localhost", port)) as running:
        head, _, body = client.ask(host, port + port_shift).partition("\r\n\r\n")

        assert head.startswith("HTTP/1.1 403 ")
        assert body == f"chef: {host}:{port + port_shift} is not on the list of package registries\n"
        assert running.report() == [EgressEntry(host.strip("[]"), port + port_shift, allowed=False, count=1)]
        assert reached == []


def test_bytes_sent_along_with_the_head_reach_the_server(client: Client) -> None:
    with listening(echo) as address, proxy(client, address), client.connect() as peer:
        peer.sendall(f"CONNECT {address[0]}:{address[1]} HTTP/1.1\r\n\r\nearly".encode())

        assert read_head(peer).startswith("HTTP/1.1 200 ")
        assert peer.recv(100) == b"early"


def test_report_is_sorted_and_counts_each_pair(client: Client) -> None:
    with listening(echo) as address, proxy(client, address) as running:
        for host in ("b.example", "a.example", "b.example"):
            client.ask(host, 443)
        client.tunnel(address).close()

        assert running.report() == [
            EgressEntry(*address, allowed=True, count=1),
            EgressEntry("a.example", 443, allowed=False, count=1),
            EgressEntry("b.example", 443, allowed=False, count=2),
        ]


def test_report_stays_bounded_whatever_a_build_asks_for(client: Client) -> None:
    with proxy(client) as running:
        for number in range(egress.REPORT_ENTRIES + 50):
            client.ask(f"n{number}.example", 443)

        report = running.report()
        assert len(report) == egress.REPORT_ENTRIES + 1
        assert EgressEntry(egress.OTHERS, 0, allowed=False, count=50) in report


# What is malformed, slow or endless ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        "\r\n\r\n",
        "CONNECT\r\n\r\n",
        "CONNECT localhost HTTP/1.1\r\n\r\n",
        "CONNECT localhost:0 HTTP/1.1\r\n\r\n",
        "CONNECT localhost:65536 HTTP/1.1\r\n\r\n",
        "CONNECT localhost:\u0661 HTTP/1.1\r\n\r\n",
        "CONNECT .:443 HTTP/1.1\r\n\r\n",
        "CONNECT [localhost]:443 HTTP/1.1\r\n\r\n",
        "CONNECT user@localhost:443 HTTP/1.1\r\n\r\n",
        "CONNECT <script>:443 HTTP/1.1\r\n\r\n",
        "CONNECT local\0host:443 HTTP/1.1\r\n\r\n",
        f"CONNECT {'a' * 255}:443 HTTP/1.1\r\n\r\n",
        "CONNECT localhost:443 HTTP/2\r\n\r\n",
        "CONNECT localhost:443 HTTP/1.1\r\nno colon\r\n\r\n",
        "CONNECT localhost:443 HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET https://localhost/ HTTP/1.1\r\n\r\n",
        "GET http://user:word@localhost/ HTTP/1.1\r\n\r\n",
        "GET http:///x HTTP/1.1\r\n\r\n",
        "GET file:///etc/passwd HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
    ],
)
def test_malformed_head_is_answered_400_and_not_recorded(client: Client, head: str | bytes) -> None:
    with proxy(client, ("localhost", 443), ("localhost", 80)) as running:
        answer = client.send(head)

        assert answer.startswith("HTTP/1.1 400 ")
        assert running.report() == []


def test_head_that_drips_is_cut_off(client: Client) -> None:
    def drip() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer.sendall(b"C")
                time.sleep(0.02)

    with proxy(client, head_timeout=0.3), client.connect() as peer:
        started = time.monotonic()
        threading.Thread(target=drip, daemon=True).start()
        answer = read_all(peer)

        assert answer.startswith("HTTP/1.1 408 ")
        assert time.monotonic() - started < 1


def test_endless_head_is_cut_off(client: Client) -> None:
    with proxy(client), client.connect() as peer:
        peer.sendall(b"CONNECT localhost:443 HTTP/1.1\r\n" + b"X: y\r\n" * (egress.HEAD_BYTES // 6))

        assert read_all(peer).startswith("HTTP/1.1 431 ")


# What cannot be reached ---------------------------------------------------------------------------------------------


def test_server_that_is_down_is_a_502_with_the_reason(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = gone.getsockname()
    with proxy(client, address):
        answer = client.ask(*address)

    assert answer.startswith("HTTP/1.1 502 ")
    assert answer.endswith(f"chef: 127.0.0.1:{address[1]} cannot be reached: Connection refused\n")


@pytest.mark.parametrize("host", ["no-such-name.invalid", "a..invalid", f"{'a' * 64}.invalid"])
def test_name_that_does_not_resolve_is_a_502(client: Client, host: str) -> None:
    with proxy(client, (host, 443)):
        answer = client.ask(host, 443)

    assert answer.startswith("HTTP/1.1 502 ")
    assert f"chef: {host}:443 cannot be reached: " in answer


def test_server_that_swallows_packets_is_a_502_in_time(client: Client) -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as deaf,
        socket.create_connection(deaf.getsockname()),  # fills its backlog: no further SYN is answered
        proxy(client, deaf.getsockname(), connect_timeout=0.5),
    ):
        started = time.monotonic()
        answer = client.ask(*deaf.getsockname())

    assert answer.endswith(" gave no answer within 0.5 s\n")
    assert time.monotonic() - started < 2


def test_every_address_of_a_name_is_tried(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, *_: object, **__: object) -> list[tuple[int, int, int, str, Address]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (end, port)) for end in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)  # name servers are the one thing here that is not ours
    with listening(echo) as (_, port), proxy(client, ("two.example", port)):
        client.tunnel(("two.example", port)).close()


# Bytes on the way ---------------------------------------------------------------------------------------------------


def test_large_download_arrives_whole_in_flat_memory(client: Client) -> None:
    def send(peer: socket.socket) -> None:
        for block in blocks(100):
            peer.sendall(block)

    with listening(send) as address, proxy(client, address), client.tunnel(address) as peer:
        before = psutil.Process().memory_info().rss
        digest = digest_of(peer)

        assert psutil.Process().memory_info().rss - before < 16 << 20
    assert digest == digest_of_blocks(100)


def test_upload_ends_with_a_half_close_and_is_then_answered(client: Client) -> None:
    with listening(answer_digest) as address, proxy(client, address), client.tunnel(address) as peer:
        for block in blocks(100):
            peer.sendall(block)
        peer.shutdown(socket.SHUT_WR)

        assert read_all(peer) == digest_of_blocks(100)


def test_slow_reader_slows_the_sender_down(client: Client) -> None:
    sent = [0]

    def flood(peer: socket.socket) -> None:
        while True:
            sent[0] += peer.send(BLOCK)

    with listening(flood) as address, proxy(client, address), client.tunnel(address):
        time.sleep(0.3)
        settled = sent[0]
        time.sleep(0.3)

        assert sent[0] == settled < 32 << 20  # what the kernel's own buffers hold


def test_fifty_tunnels_at_once_keep_their_bytes_apart(client: Client) -> None:
    def exchange(number: int) -> bool:
        payload = number.to_bytes(1, "big") * 300_000
        with client.tunnel(address) as peer:
            peer.sendall(payload)
            peer.shutdown(socket.SHUT_WR)
            return read_all(peer) == hashlib.sha256(payload).hexdigest()

    with listening(answer_digest) as address, proxy(client, address) as running, ThreadPoolExecutor(50) as pool:
        assert all(pool.map(exchange, range(50)))
        assert running.report() == [EgressEntry(*address, allowed=True, count=50)]


def test_busy_tunnel_does_not_starve_another(client: Client) -> None:
    def flood(peer: socket.socket) -> None:
        while True:
            peer.sendall(BLOCK)

    drain = "import socket, sys; s = socket.socket(fileno=int(sys.argv[1]))\nwhile s.recv(1 << 20): pass"
    with listening(flood) as loud, listening(echo) as quiet, proxy(client, loud, quiet), client.tunnel(loud) as flooded:
        number = flooded.fileno()
        flooded.setblocking(True)
        with (
            subprocess.Popen([sys.executable, "-c", drain, str(number)], pass_fds=[number]),
            client.tunnel(quiet) as peer,
        ):
            started = time.monotonic()
            for _ in range(20):
                peer.sendall(b".")
                assert peer.recv(1) == b"."
            took = time.monotonic() - started
            flooded.shutdown(socket.SHUT_RDWR)

    assert took < 2


def test_connections_past_the_limit_wait_for_their_turn(client: Client) -> None:
    with listening(echo) as address, proxy(client, address, max_connections=2):
        first, second, third = client.tunnel(address), client.tunnel(address), client.connect()
        with second, third:
            third.sendall(f"CONNECT {address[0]}:{address[1]} HTTP/1.1\r\n\r\n".encode())
            third.settimeout(0.2)
            with pytest.raises(TimeoutError):
                third.recv(1)
            first.close()
            third.settimeout(5)

            assert read_head(third).startswith("HTTP/1.1 200 ")


def test_silent_tunnel_is_closed_and_a_busy_one_is_not(client: Client) -> None:
    with (
        listening(echo) as address,
        proxy(client, address, idle_timeout=0.5),
        client.tunnel(address) as silent,
        client.tunnel(address) as busy,
    ):
        for _ in range(10):
            busy.sendall(b".")
            assert busy.recv(1) == b"."
            time.sleep(0.1)
        silent.settimeout(0.1)

        assert is_closed(silent)


# Start and stop -----------------------------------------------------------------------------------------------------


def test_stop_closes_every_connection_at_once_and_leaves_nothing(client: Client, folder: Path) -> None:
    ended = threading.Barrier(11, timeout=2)

    def hold(peer: socket.socket) -> None:
        peer.recv(1)
        ended.wait()

    with listening(hold) as address:
        running = EgressProxy(folder=folder, allowed=frozenset({address}))
        running.start()
        peers = [client.tunnel(address) for _ in range(10)] + [client.connect()]
        started = time.monotonic()
        running.stop()
        took = time.monotonic() - started
        ended.wait()

    assert took < 0.5
    assert all(is_closed(peer) for peer in peers)
    assert not folder.exists()
    assert "chef-egress" not in [thread.name for thread in threading.enumerate()]
    for peer in peers:
        peer.close()


def test_stop_is_repeatable_and_start_again_works(client: Client, folder: Path) -> None:
    running = EgressProxy(folder=folder, allowed=frozenset())
    running.stop()
    for _ in range(2):
        running.start()
        assert client.ask("a.example", 443).startswith("HTTP/1.1 403 ")
        running.stop()
        running.stop()

    assert running.report() == [EgressEntry("a.example", 443, allowed=False, count=2)]


def test_start_replaces_the_socket_of_a_worker_that_was_killed(client: Client, folder: Path) -> None:
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(client.path)

    with proxy(client):
        assert client.ask("a.example", 443).startswith("HTTP/1.1 403 ")


def test_proxy_made_in_a_forked_process_works(client: Client) -> None:
    with listening(echo) as address, proxy(client, address):
        if (child := os.fork()) == 0:
            other = Client(Path(client.path).parent.with_name("forked"))
            with proxy(other, address), other.tunnel(address) as peer:
                peer.sendall(b"x")
                os._exit(0 if peer.recv(1) == b"x" else 1)
        _, status = os.waitpid(child, 0)

        assert os.waitstatus_to_exitcode(status) == 0
        client.tunnel(address).close()


def test_folder_too_long_for_a_unix_socket_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="107"):
        EgressProxy(folder=tmp_path / ("x" * 100), allowed=frozenset())


# Plain http ---------------------------------------------------------------------------------------------------------


class Mirror:
    """A plain-http server that keeps what it was sent and gives one fixed answer, whatever was asked."""

    def __init__(self, answer: str) -> None:
        self.heads: list[str] = []
        self.answer = answer

    def __call__(self, peer: socket.socket) -> None:
        self.heads.append(read_head(peer))
        peer.sendall(self.answer.encode())


def test_plain_http_goes_to_the_host_of_the_url_without_hop_headers(client: Client) -> None:
    mirror = Mirror("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: 5\r\nContent-Length: 2\r\n\r\nhi")
    with listening(mirror) as (_, port), proxy(client, ("localhost", port)) as running:
        answer = client.send(
            f"GET http://LocalHost.:{port}/a?b=c HTTP/1.1\r\nHost: evil.example\r\nAccept: */*\r\nX-Hop: 1\r\n"
            "Proxy-Connection: keep-alive\r\nConnection: X-Hop\r\nProxy-Authorization: Basic eA==\r\n\r\n"
        )

        assert answer == "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
        assert mirror.heads == [
            f"GET /a?b=c HTTP/1.1\r\nHost: localhost:{port}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        ]
        assert running.report() == [EgressEntry("localhost", port, allowed=True, count=1)]


def test_interim_answers_are_left_out(client: Client) -> None:
    mirror = Mirror("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
    with listening(mirror) as (host, port), proxy(client, (host, port)):
        answer = client.send(f"HEAD http://{host}:{port} HTTP/1.0\r\n\r\n")

    assert answer == "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    assert mirror.heads[0].startswith("HEAD / HTTP/1.0\r\n")


def test_second_request_on_a_connection_is_not_carried(client: Client) -> None:
    mirror = Mirror("HTTP/1.1 200 OK\r\n\r\nfirst")
    with listening(mirror) as (host, port), proxy(client, (host, port)):
        answer = client.send(f"GET http://{host}:{port}/ HTTP/1.1\r\n\r\n" * 2)

    assert answer.endswith("\r\n\r\nfirst")
    assert len(mirror.heads) == 1


def test_plain_http_off_the_list_is_refused_and_recorded_whatever_its_method(client: Client) -> None:
    with proxy(client) as running:
        answers = [client.send(f"{method} http://evil.example/ HTTP/1.1\r\n\r\n") for method in ("GET", "POST")]

        assert all(answer.startswith("HTTP/1.1 403 ") for answer in answers)
        assert running.report() == [EgressEntry("evil.example", 80, allowed=False, count=2)]


@pytest.mark.parametrize("head", ["POST {} HTTP/1.1\r\n\r\n", "GET {} HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"])
def test_plain_http_carries_no_body(client: Client, head: str) -> None:
    with listening(echo) as (host, port), proxy(client, (host, port)):
        assert client.send(head.format(f"http://{host}:{port}/")).startswith("HTTP/1.1 405 ")


def test_server_that_does_not_speak_http_is_a_502(client: Client) -> None:
    with listening(Mirror("220 mail.example ESMTP\r\n\r\n")) as (host, port), proxy(client, (host, port)):
        assert client.send(f"GET http://{host}:{port}/ HTTP/1.1\r\n\r\n").startswith("HTTP/1.1 502 ")


# Through a proxy that the machine itself needs ----------------------------------------------------------------------


def test_tunnel_goes_through_the_upstream_proxy_with_its_password(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads: list[str] = []

    def upstream(peer: socket.socket) -> None:
        heads.append(read_head(peer))
        peer.sendall(b"HTTP/1.1 200 OK\r\n\r\nwelcome")
        echo(peer)

    with listening(upstream) as (_, port):
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:p%40ss@127.0.0.1:{port}")
        with proxy(client, ("registry.example", 443)), client.tunnel(("registry.example", 443)) as peer:
            greeting = peer.recv(100)
            peer.sendall(b"x")
            echoed = peer.recv(100)

    assert (greeting, echoed) == (b"welcome", b"x")
    authorization = base64.b64encode(b"user:p@ss").decode()
    assert heads == [
        "CONNECT registry.example:443 HTTP/1.1\r\nHost: registry.example:443\r\n"
        f"Proxy-Authorization: Basic {authorization}\r\n\r\n"
    ]


def test_plain_http_goes_through_the_upstream_proxy(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Mirror("HTTP/1.1 200 OK\r\n\r\nhi")
    with listening(mirror) as (_, port):
        monkeypatch.setenv("http_proxy", f"127.0.0.1:{port}")
        with proxy(client, ("mirror.example", 80)):
            answer = client.send("GET http://mirror.example/x HTTP/1.1\r\n\r\n")

    assert answer.endswith("hi")
    assert mirror.heads[0].startswith("GET http://mirror.example/x HTTP/1.1\r\nHost: mirror.example\r\n")


def test_no_proxy_is_honoured(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "other.example,localhost")
    with listening(echo) as (_, port), proxy(client, ("localhost", port), ("127.0.0.1", port)):
        client.tunnel(("localhost", port)).close()

        assert "the upstream proxy cannot be reached: Connection refused" in client.ask("127.0.0.1", port)


def test_refusal_by_the_upstream_proxy_is_a_502(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(Mirror("HTTP/1.1 407 Who are you\r\n\r\n")) as (_, port):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        with proxy(client, ("registry.example", 443)):
            answer = client.ask("registry.example", 443)

    assert answer.endswith("chef: the upstream proxy answered 407 for registry.example:443\n")


@pytest.mark.parametrize("url", ["socks5://user:secret@proxy.example:1080", "http://user:secret@proxy.example:port"])
def test_unusable_upstream_proxy_is_said_at_once_without_its_password(
    folder: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", url)
    with pytest.raises(ValueError, match="HTTPS_PROXY") as caught:
        EgressProxy(folder=folder, allowed=frozenset())

    assert "secret" not in str(caught.value)


# From a sealed container, through the forwarders --------------------------------------------------------------------

INSIDE = Path(egress.__file__).with_name("inside")
BUNDLE = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
TRUST = {"NODE_EXTRA_CA_CERTS": "/chef/ca.pem", "PIP_CERT": "/chef/ca.pem", "SSL_CERT_FILE": "/chef/ca.pem"}
PROXY = dict.fromkeys(("http_proxy", "https_proxy", "npm_config_proxy"), "http://127.0.0.1:3128")

# Twenty times at once: send 2 MB, end, and print the digest of all that comes back.
EXCHANGE = {
    "node": """
        const net = require('node:net'), { createHash } = require('node:crypto');
        for (let i = 0; i < 20; i++) {
          const digest = createHash('sha256');
          const peer = net.connect({ host: '127.0.0.1', port: 3128, allowHalfOpen: true });
          peer.write(`CONNECT ${process.argv[1]} HTTP/1.1\\r\\n\\r\\n`);
          peer.once('data', () => {
            peer.on('data', (data) => digest.update(data));
            peer.end(Buffer.alloc(2e6, 'x'));
          });
          peer.on('end', () => console.log(digest.digest('hex')));
        }""",
    "python": """if True:
        import hashlib, socket, sys, threading
        def exchange():
            digest = hashlib.sha256()
            peer = socket.create_connection(("127.0.0.1", 3128))
            peer.sendall(b"CONNECT %s HTTP/1.1\\r\\n\\r\\n" % sys.argv[1].encode())
            peer.recv(1000)
            peer.sendall(b"x" * 2_000_000)
            peer.shutdown(socket.SHUT_WR)
            while data := peer.recv(65536):
                digest.update(data)
            print(digest.hexdigest() + "\\n", end="")
        for _ in range(20):
            threading.Thread(target=exchange).start()""",
}
# Prints the name of the error that a direct connection to each address meets.
DIRECT = {
    "node": """
        const net = require('node:net');
        for (const address of process.argv.slice(1)) {
          const [host, port] = address.split(' ');
          net.connect({ host, port: Number(port) }).on('error', (error) => console.log(error.code))
            .on('connect', () => console.log('reached', address));
        }""",
    "python": """if True:
        import errno, socket, sys
        for address in sys.argv[1:]:
            host, port = address.split(' ')
            try:
                socket.create_connection((host, int(port)), timeout=5)
                print('reached', address)
            except OSError as error:
                print(errno.errorcode.get(error.errno, error.errno))""",
}
EVALUATE = {"node": ["node", "-e"], "python": ["python3", "-c"]}

languages = pytest.mark.parametrize("language", ["node", "python"])


class Sandbox:
    """A container as the installation phase has it: no network, nothing writable but /tmp, no privilege."""

    def __init__(self, folder: Path) -> None:
        self.client = docker.from_env(timeout=60)
        self.folder = folder

    def volumes(self) -> dict[str, dict[str, str]]:
        sources = {str(self.folder): "/chef/egress", str(INSIDE): "/chef/inside", BUNDLE: "/chef/ca.pem"}
        return {source: {"bind": target, "mode": "ro"} for source, target in sources.items()}

    @contextlib.contextmanager
    def start(self, language: str, argv: list[str]) -> Iterator[Container]:
        self.folder.mkdir(exist_ok=True)
        container = self.client.containers.run(
            IMAGES[language], [*FORWARD[language], "/chef/egress/proxy.sock", "3128", "--", *argv], detach=True,
            network_mode="none", user=f"{UID}:{UID}", read_only=True, cap_drop=["ALL"], init=True, pids_limit=256,
            security_opt=["no-new-privileges"], tmpfs={"/tmp": f"size=64m,exec,uid={UID}"}, working_dir="/tmp",
            environment={"HOME": "/tmp"} | TRUST | PROXY, volumes=self.volumes(), mem_limit="512m",
        )  # fmt: skip
        try:
            yield container
        finally:
            container.remove(force=True, v=True)

    def run(self, language: str, argv: list[str]) -> tuple[int, str]:
        """Exit code, and what was written to both streams."""
        with self.start(language, argv) as container:
            code = container.wait(timeout=60)["StatusCode"]
            return code, container.logs().decode()


@pytest.fixture
def sandbox(folder: Path) -> Iterator[Sandbox]:
    sandbox = Sandbox(folder)
    yield sandbox
    sandbox.client.close()


@languages
def test_forwarder_runs_the_command_as_given_and_ends_with_its_code(sandbox: Sandbox, language: str) -> None:
    code, output = sandbox.run(language, ["sh", "-c", 'echo "$1"; echo err >&2; exit 7', "sh", "$HOME `id` ; 'x"])

    assert code == 7
    assert sorted(output.splitlines()) == ["$HOME `id` ; 'x", "err"]


@languages
@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["sh", "-c", "kill -9 $$"], 137, ""),
        (["no-such-command"], 127, "chef: cannot run no-such-command"),
        (["/tmp"], 126, "chef: cannot run /tmp"),
    ],
)
def test_forwarder_tells_how_the_command_ended(
    sandbox: Sandbox, language: str, argv: list[str], code: int, words: str
) -> None:
    ended, output = sandbox.run(language, argv)

    assert ended == code
    assert words in output


@languages
def test_forwarder_passes_sigterm_on(sandbox: Sandbox, language: str) -> None:
    script = 'trap "exit 9" TERM; echo ready; while :; do sleep 0.05; done'
    with sandbox.start(language, ["sh", "-c", script]) as container:
        deadline = time.monotonic() + 10
        while b"ready" not in container.logs() and time.monotonic() < deadline:
            time.sleep(0.05)
        container.kill("SIGTERM")

        assert container.wait(timeout=10)["StatusCode"] == 9


@languages
def test_forwarder_says_that_its_port_is_taken(sandbox: Sandbox, language: str) -> None:
    code, output = sandbox.run(language, [*FORWARD[language], "/chef/egress/proxy.sock", "3128", "--", "true"])

    assert code == 70
    assert output.startswith("chef: cannot listen on 127.0.0.1:3128: ")


@languages
def test_forwarder_carries_many_connections_whole(sandbox: Sandbox, client: Client, language: str) -> None:
    def answer(peer: socket.socket) -> None:
        peer.sendall(digest_of(peer).encode())
        for block in blocks(2):
            peer.sendall(block)

    with listening(answer) as (host, port), proxy(client, (host, port)):
        code, output = sandbox.run(language, [*EVALUATE[language], EXCHANGE[language], f"{host}:{port}"])

    expected = hashlib.sha256(hashlib.sha256(b"x" * 2_000_000).hexdigest().encode() + b"".join(blocks(2))).hexdigest()
    assert code == 0
    assert output.split() == [expected] * 20


@languages
def test_container_reaches_nothing_directly(sandbox: Sandbox, client: Client, language: str) -> None:
    entries = itertools.chain.from_iterable(psutil.net_if_addrs().values())
    own = [entry.address for entry in entries if entry.family == socket.AF_INET]
    hosts = {"127.0.0.1", "169.254.169.254", "198.51.100.1", *own}
    with listening(echo) as (_, port), proxy(client, ("127.0.0.1", port)):
        addresses = [f"{host} {port}" for host in hosts]
        code, output = sandbox.run(language, [*EVALUATE[language], DIRECT[language], *addresses])

    assert code == 0
    assert sorted(output.split()) == ["ECONNREFUSED", *["ENETUNREACH"] * (len(hosts) - 1)]


def test_npm_installs_through_the_proxy_from_its_registry_alone(folder: Path, sandbox: Sandbox) -> None:
    registry = npm_registry(sandbox)
    with EgressProxy(folder=folder, allowed=frozenset({pair_of(registry)})) as running:
        install = f"npm install --registry={registry} --no-audit is-number && ls node_modules"
        code, output = sandbox.run("node", ["sh", "-c", install])

    assert code == 0, output
    assert output.splitlines()[-1] == "is-number"
    assert [(entry.host, entry.port) for entry in running.report()] == [pair_of(registry)]


def test_npm_install_from_a_host_off_the_list_fails_and_is_recorded(folder: Path, sandbox: Sandbox) -> None:
    with EgressProxy(folder=folder, allowed=frozenset()) as running:
        install = ["npm", "install", "--registry=https://evil.example", "--fetch-retries=0", "is-number"]
        code, output = sandbox.run("node", install)

    assert code != 0
    assert "403" in output
    assert [(entry.host, entry.allowed) for entry in running.report()] == [("evil.example", False)]


def test_pip_installs_through_the_proxy_from_its_index_alone(folder: Path, sandbox: Sandbox) -> None:
    index, files = pip_index()
    allowed = frozenset({pair_of(index), (files, 443)})
    with EgressProxy(folder=folder, allowed=allowed) as running:
        install = f"python3 -m pip install -q --no-cache-dir -i {index} --target site iniconfig && ls site"
        code, output = sandbox.run("python", ["sh", "-c", install])

    assert code == 0, output
    assert "iniconfig" in output.splitlines()
    assert {(entry.host, entry.port) for entry in running.report()} <= allowed


def npm_registry(sandbox: Sandbox) -> str:
    """As the machine's npm is configured, or, without one, as the image's is."""
    argv = ["npm", "config", "get", "registry"]
    if shutil.which("npm"):
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    return sandbox.run("node", argv)[1].strip()


def pip_index() -> tuple[str, str]:
    """The index that the machine's pip uses, and the host that pip's own default index keeps its files on."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True
    )
    script = "from pip._internal.models.index import PyPI; print(PyPI.simple_url, PyPI.file_storage_domain)"
    default = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    return os.environ.get("PIP_INDEX_URL") or told.stdout.strip() or default[0], default[1]


def pair_of(url: str) -> Address:
    parts = urlsplit(url)
    assert parts.hostname
    return parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]
