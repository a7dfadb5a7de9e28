"""The tests' own webhook receiver: incomplete messages do not count."""

import socket
from contextlib import closing

import httpx
import pytest

from tests.receiver import Receiver

pytestmark = pytest.mark.once

HEAD = b"POST /hooks HTTP/1.1\r\nHost: x\r\nwebhook-id: 1\r\nContent-Length: 10\r\n\r\n"


@pytest.mark.parametrize("sent", [HEAD + b"123456789", HEAD, HEAD[:-8], HEAD[:50]])
def test_an_incomplete_message_does_not_count(sent: bytes) -> None:
    with Receiver() as receiver:
        with closing(socket.create_connection(("127.0.0.1", receiver.port), timeout=10)) as sender:
            sender.sendall(sent)
            sender.shutdown(socket.SHUT_WR)
            answered = sender.recv(100)
        httpx.post(receiver.url, content=b"whole", trust_env=False)

        assert [message.body for message in receiver.messages] == [b"whole"]
    assert answered == b""


def test_an_empty_body_with_length_zero_is_a_message() -> None:
    with Receiver() as receiver:
        httpx.post(receiver.url, trust_env=False)

        assert [message.body for message in receiver.messages] == [b""]
