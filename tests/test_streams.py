"""Handing an answer over from Django to its stream: the head is kept, places are given back, however it ends."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from io import BytesIO
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http import HttpResponse
from pytest_django import Settings
from rest_framework.exceptions import NotAcceptable
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from chef import streams
from chef.streams import TooManyReaders, hand_over, serve

Message = dict[str, Any]
SCOPE: Message = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}


async def counting(most: int) -> AsyncGenerator[bytes]:
    for number in range(most):
        yield str(number).encode()


async def endless() -> AsyncGenerator[bytes]:
    while True:
        yield b"x"
        await asyncio.sleep(0.01)


class Client:
    """The other side of one request: what has been sent to it, and when it leaves."""

    def __init__(self, *, leaves_after: int = 10**9, takes: int = 10**9) -> None:
        self.sent: list[Message] = []
        self._leaves_after, self._takes = leaves_after, takes
        self._gone = asyncio.Event()

    async def receive(self) -> Message:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if len(self.sent) >= self._takes:
            await asyncio.Event().wait()  # a full buffer that nobody empties
        self.sent.append(message)
        if len(self.sent) >= self._leaves_after:
            self._gone.set()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


def answer(body: Callable[[], AsyncGenerator[bytes]], **options: Any) -> Client:
    """Serve one request to a view that hands this body over."""

    async def application(scope: Message, receive: Any, send: Any) -> None:
        request = Request(ASGIRequest(scope, BytesIO()))
        await ASGIHandler().send_response(hand_over(request, body()), send)

    async def run() -> Client:
        client = Client(**options)
        async with asyncio.timeout(5):
            await serve(application, dict(SCOPE), client.receive, client.send, body_of=client.receive)
        return client

    return asyncio.run(run())


def test_the_view_s_head_is_sent_and_then_the_body() -> None:
    client = answer(lambda: counting(3))

    start, *_, last = client.sent
    headers = dict(start["headers"])
    assert (start["status"], headers[b"Content-Type"]) == (200, b"text/event-stream")
    assert b"content-length" not in {name.lower() for name in headers}
    assert client.body == b"012"
    assert last == {"type": "http.response.body", "body": b""}


def test_an_answer_that_nobody_has_handed_over_passes_unchanged() -> None:
    async def application(scope: Message, receive: Any, send: Any) -> None:
        await ASGIHandler().send_response(HttpResponse("plain", status=201), send)

    async def run() -> Client:
        client = Client()
        await serve(application, dict(SCOPE), client.receive, client.send, body_of=client.receive)
        return client

    client = asyncio.run(run())
    assert (client.sent[0]["status"], client.body) == (201, b"plain")


def test_a_reader_that_leaves_gives_its_place_back(settings: Settings) -> None:
    settings.MAX_LIVE_READERS = 1

    answer(endless, leaves_after=5)

    assert answer(lambda: counting(2)).body == b"01"


def test_a_reader_that_takes_nothing_is_left(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STUCK_SECONDS", 0.1)
    settings.MAX_LIVE_READERS = 1

    client = answer(endless, takes=5)

    assert client.body == b"xxxx"
    assert client.sent[-1]["more_body"]  # nobody takes it for whole
    assert answer(lambda: counting(2)).body == b"01"


def test_a_body_that_fails_is_not_taken_for_whole_and_gives_its_place_back(settings: Settings) -> None:
    async def failing() -> AsyncGenerator[bytes]:
        yield b"0"
        raise RuntimeError("broken")

    settings.MAX_LIVE_READERS = 1

    with pytest.raises(RuntimeError, match="broken"):
        answer(failing)

    assert answer(lambda: counting(2)).body == b"01"


def test_past_the_limit_a_reader_is_refused(settings: Settings) -> None:
    settings.MAX_LIVE_READERS = 0

    with pytest.raises(TooManyReaders):
        answer(lambda: counting(1))


def test_without_asgi_a_stream_is_not_acceptable_but_its_head_can_be_had() -> None:
    factory = APIRequestFactory()

    with pytest.raises(NotAcceptable):
        hand_over(Request(factory.get("/")), counting(1))

    assert hand_over(Request(factory.head("/")), counting(1)).headers["Content-Type"] == "text/event-stream"
