"""Plain http through the egress proxy, and both kinds of requests through an upstream proxy."""

import base64
import socket
from pathlib import Path

import pytest

from builds.sandbox.egress import EgressEntry, EgressProxy
from tests.builds.sandbox.egress.peers import Client, Mirror, echo, listening, proxy, read_head

pytestmark = pytest.mark.once

# Plain http ---------------------------------------------------------------------------------------------------------


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


def test_second_request_on_a_connection_is_not_forwarded(client: Client) -> None:
    mirror = Mirror("HTTP/1.1 200 OK\r\n\r\nfirst")
    with listening(mirror) as (host, port), proxy(client, (host, port)):
        answer = client.send(f"GET http://{host}:{port}/ HTTP/1.1\r\n\r\n" * 2)

    assert answer.endswith("\r\n\r\nfirst")
    assert len(mirror.heads) == 1


def test_plain_http_to_an_unlisted_host_is_refused_and_recorded_for_any_method(client: Client) -> None:
    with proxy(client) as running:
        answers = [client.send(f"{method} http://evil.example/ HTTP/1.1\r\n\r\n") for method in ("GET", "POST")]

        assert all(answer.startswith("HTTP/1.1 403 ") for answer in answers)
        assert running.report() == [EgressEntry("evil.example", 80, allowed=False, count=2)]


@pytest.mark.parametrize("head", ["POST {} HTTP/1.1\r\n\r\n", "GET {} HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"])
def test_plain_http_with_a_body_is_refused(client: Client, head: str) -> None:
    with listening(echo) as (host, port), proxy(client, (host, port)):
        assert client.send(head.format(f"http://{host}:{port}/")).startswith("HTTP/1.1 405 ")


def test_server_that_does_not_speak_http_is_a_502(client: Client) -> None:
    with listening(Mirror("220 mail.example ESMTP\r\n\r\n")) as (host, port), proxy(client, (host, port)):
        assert client.send(f"GET http://{host}:{port}/ HTTP/1.1\r\n\r\n").startswith("HTTP/1.1 502 ")


# Through an upstream proxy ------------------------------------------------------------------------------------------


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
def test_invalid_upstream_proxy_is_reported_at_once_without_its_password(
    folder: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", url)
    with pytest.raises(ValueError, match="HTTPS_PROXY") as caught:
        EgressProxy(folder=folder, allowed=frozenset())

    assert "secret" not in str(caught.value)
