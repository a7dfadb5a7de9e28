"""The egress proxy's tunnels over real sockets: what is allowed, what is refused, and under load."""

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from builds.sandbox import egress
from builds.sandbox.egress import EgressEntry, EgressProxy
from builds.sandbox.proxy_heads import HEAD_BYTES
from tests.builds.sandbox.egress.peers import (
    BLOCK,
    Address,
    Client,
    answer_digest,
    blocks,
    digest_of,
    digest_of_blocks,
    echo,
    is_closed,
    listening,
    proxy,
    read_all,
    read_head,
)

pytestmark = [pytest.mark.once, pytest.mark.slow]

# Allowed requests ---------------------------------------------------------------------------------------------------


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
def test_unlisted_pair_is_refused_and_counted_separately(client: Client, host: str, port_shift: int) -> None:
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


def test_report_stays_bounded_for_any_requests(client: Client) -> None:
    with proxy(client) as running:
        for number in range(egress.REPORT_ENTRIES + 50):
            client.ask(f"n{number}.example", 443)

        report = running.report()
        assert len(report) == egress.REPORT_ENTRIES + 1
        assert EgressEntry(egress.OTHERS, 0, allowed=False, count=50) in report


# Malformed, slow or endless requests --------------------------------------------------------------------------------


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


def test_slow_head_is_cut_off(client: Client) -> None:
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
        peer.sendall(b"CONNECT localhost:443 HTTP/1.1\r\n" + b"X: y\r\n" * (HEAD_BYTES // 6))

        assert read_all(peer).startswith("HTTP/1.1 431 ")


# Unreachable servers ------------------------------------------------------------------------------------------------


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


def test_server_that_drops_packets_is_a_502_in_time(client: Client) -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as deaf,
        socket.create_connection(deaf.getsockname()),  # fills its backlog: no further SYN is answered
        proxy(client, deaf.getsockname(), connect_timeout=0.5),
    ):
        started = time.monotonic()
        answer = client.ask(*deaf.getsockname())

    assert answer.endswith(" did not respond within 0.5 s\n")
    assert time.monotonic() - started < 2


def test_every_address_of_a_name_is_tried(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, *_: object, **__: object) -> list[tuple[int, int, int, str, Address]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (end, port)) for end in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)  # only the name servers are not under the test's control
    with listening(echo) as (_, port), proxy(client, ("two.example", port)):
        client.tunnel(("two.example", port)).close()


# Data transfer ------------------------------------------------------------------------------------------------------


def test_large_download_arrives_complete_in_constant_memory(client: Client) -> None:
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

        assert sent[0] == settled < 32 << 20  # the size of the kernel's buffers


def test_fifty_concurrent_tunnels_do_not_mix_bytes(client: Client) -> None:
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


def test_idle_tunnel_is_closed_and_a_busy_one_is_not(client: Client) -> None:
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


def test_path_too_long_for_a_unix_socket_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="107"):
        EgressProxy(folder=tmp_path / ("x" * 100), allowed=frozenset())
