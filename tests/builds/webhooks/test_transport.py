"""One message over HTTP: no receiver costs more than its time limit, and each failure has a code."""

import datetime
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pytest_django import Settings

from builds.webhooks import transport
from builds.webhooks.transport import ANSWER_BYTES, Answer, post
from tests.ports import free_port
from tests.receiver import Receiver, Reply

pytestmark = pytest.mark.once("postgresql")


def sent(receiver: Receiver, *, seconds: float = 5) -> Answer:
    return post(receiver.url, {"webhook-id": "1"}, b'{"a":1}', seconds=seconds)


def test_a_message_arrives_unchanged(receiver: Receiver) -> None:
    receiver.reply = lambda _: Reply(200, body=b"thanks")

    answer = sent(receiver)

    assert (answer.status, answer.text, answer.is_good) == (200, "thanks", True)
    [message] = receiver.messages
    assert (message.path, message.body, message.id) == ("/hooks", b'{"a":1}', "1")
    assert message.headers["host"] == receiver.host
    assert message.headers["content-length"] == "7"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_and_not_followed(receiver: Receiver, status: int) -> None:
    receiver.reply = lambda _: Reply(status, {"Location": f"{receiver.url}/elsewhere"})

    answer = sent(receiver)

    assert (answer.status, answer.is_good) == (status, False)
    assert [message.path for message in receiver.messages] == ["/hooks"]


@pytest.mark.parametrize(("how", "error"), [("hang", "timeout"), ("drip", "timeout"), ("reset", "connection_lost")])
def test_a_silent_receiver_costs_only_the_time_limit(receiver: Receiver, how: str, error: str) -> None:
    receiver.reply = lambda _: Reply(how=how)

    began = time.monotonic()
    answer = sent(receiver, seconds=0.6)

    assert (answer.status, answer.error) == (None, error)
    assert time.monotonic() - began < 3


def test_an_endless_answer_is_cut(receiver: Receiver) -> None:
    receiver.reply = lambda _: Reply(500, {"Content-Length": str(10**12)}, b"x" * 5_000_000)

    answer = sent(receiver)

    assert (answer.status, answer.text) == (500, "x" * ANSWER_BYTES)


def test_a_status_counts_without_its_body(receiver: Receiver) -> None:
    receiver.reply = lambda _: Reply(200, {"Content-Length": "100"}, b"half")

    assert sent(receiver, seconds=1) == Answer(status=200, text="half")


def test_bytes_that_a_database_refuses_are_replaced(receiver: Receiver) -> None:
    receiver.reply = lambda _: Reply(500, body=b"a\0b\xff")

    assert sent(receiver).text == "a�b�"


def test_an_invalid_http_response_is_reported(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        settings.WEBHOOK_ALLOW_HTTP, settings.WEBHOOK_ALLOWED_HOSTS = True, [f"127.0.0.1:{port}"]
        server.settimeout(10)

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(65_536)
                peer.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        found = post(f"http://127.0.0.1:{port}/", {}, b"{}", seconds=5)
        thread.join(10)

    assert (found.status, found.error) == (None, "bad_answer")


def test_a_refused_connection_is_reported(settings: Settings) -> None:
    port = free_port()
    settings.WEBHOOK_ALLOW_HTTP, settings.WEBHOOK_ALLOWED_HOSTS = True, ["127.0.0.1"]

    assert post(f"http://127.0.0.1:{port}/", {}, b"{}", seconds=5).error == "connection_failed"
    nowhere = post("https://nowhere.invalid/", {}, b"{}", seconds=5, resolver=lambda host, port: [])
    assert nowhere.error == "name_not_found"


def test_proxies_of_the_environment_are_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    assert sent(receiver).status == 204


# --- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key with a self-signed certificate for receiver.example, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver.example")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("receiver.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "receiver.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def secure(certificate: Path, settings: Settings) -> Iterator[tuple[Receiver, list[str | None]]]:
    """A TLS receiver, and the server names that clients requested."""
    asked: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _, name, __: asked.append(name)
    with Receiver(tls=context) as receiver:
        settings.WEBHOOK_ALLOWED_HOSTS = [f"{name}:{receiver.port}" for name in ("receiver.example", "other.example")]
        yield receiver, asked


def test_tls_verifies_the_name_while_connecting_to_the_address(
    secure: tuple[Receiver, list[str | None]], certificate: Path
) -> None:
    receiver, asked = secure
    trust = ssl.create_default_context(cafile=str(certificate))
    url = f"https://receiver.example:{receiver.port}/x"

    answer = post(url, {}, b"{}", seconds=5, resolver=lambda host, port: ["127.0.0.1"], tls=trust)

    assert answer.status == 204, answer
    assert asked == ["receiver.example"]
    assert receiver.messages[0].headers["host"] == f"receiver.example:{receiver.port}"


def test_a_certificate_with_another_name_or_unknown_issuer_is_refused(
    secure: tuple[Receiver, list[str | None]], certificate: Path
) -> None:
    receiver, _ = secure
    trust = ssl.create_default_context(cafile=str(certificate))

    def tried(name: str, tls: ssl.SSLContext | None) -> str:
        url = f"https://{name}:{receiver.port}/"
        return post(url, {}, b"{}", seconds=5, resolver=lambda host, port: ["127.0.0.1"], tls=tls).error

    assert tried("other.example", trust) == "tls_failed"
    assert tried("receiver.example", None) == "tls_failed"
    assert transport._tls().verify_mode == ssl.CERT_REQUIRED
    assert receiver.messages == []


def test_the_next_address_is_tried_if_one_does_not_respond(receiver: Receiver, settings: Settings) -> None:
    settings.WEBHOOK_ALLOWED_HOSTS = [f"two.example:{receiver.port}"]

    answer = post(
        f"http://two.example:{receiver.port}/", {}, b"{}", seconds=5, resolver=lambda h, p: ["127.0.0.2", "127.0.0.1"]
    )

    assert answer.status == 204
