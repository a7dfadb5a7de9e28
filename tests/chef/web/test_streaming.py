"""Responses that outlive the request: the head is kept, and connections count until they end."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from io import BytesIO
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http import HttpResponse
from pytest_django import Settings
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from chef.web import streaming
from chef.web.streaming import NoLiveStreamsError, TooManyReadersError, defer_response, serve, stream_response

pytestmark = pytest.mark.once

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
    """The client of one request: records messages, and may disconnect or stop reading."""

    def __init__(self, *, leaves_after: int = 10**9, takes: int = 10**9) -> None:
        self.sent: list[Message] = []
        self._leaves_after, self._takes = leaves_after, takes
        self._gone = asyncio.Event()

    async def receive(self) -> Message:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if len(self.sent) >= self._takes:
            await asyncio.Event().wait()  # a full buffer that is never drained
        self.sent.append(message)
        if len(self.sent) >= self._leaves_after:
            self._gone.set()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


def answer(body: Callable[[], AsyncGenerator[bytes]], **options: Any) -> Client:
    """Serve one request to a view whose response has this body."""

    async def application(scope: Message, receive: Any, send: Any) -> None:
        request = Request(ASGIRequest(scope, BytesIO()))
        await ASGIHandler().send_response(stream_response(request, body()), send)

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


def test_any_other_response_passes_unchanged() -> None:
    async def application(scope: Message, receive: Any, send: Any) -> None:
        await ASGIHandler().send_response(HttpResponse("plain", status=201), send)

    async def run() -> Client:
        client = Client()
        await serve(application, dict(SCOPE), client.receive, client.send, body_of=client.receive)
        return client

    client = asyncio.run(run())
    assert (client.sent[0]["status"], client.body) == (201, b"plain")


def test_a_client_that_disconnects_no_longer_counts(settings: Settings) -> None:
    settings.MAX_LIVE_READERS = 1

    answer(endless, leaves_after=5)

    assert answer(lambda: counting(2)).body == b"01"


def test_a_client_that_does_not_read_is_disconnected(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "STUCK_SECONDS", 0.1)
    settings.MAX_LIVE_READERS = 1

    client = answer(endless, takes=5)

    assert client.body == b"xxxx"
    assert client.sent[-1]["more_body"]  # the client can see that it is incomplete
    assert answer(lambda: counting(2)).body == b"01"


def test_a_failed_body_is_incomplete_and_no_longer_counts(settings: Settings) -> None:
    async def failing() -> AsyncGenerator[bytes]:
        yield b"0"
        raise RuntimeError("broken")

    settings.MAX_LIVE_READERS = 1

    with pytest.raises(RuntimeError, match="broken"):
        answer(failing)

    assert answer(lambda: counting(2)).body == b"01"


def test_a_reader_beyond_the_limit_is_refused(settings: Settings) -> None:
    settings.MAX_LIVE_READERS = 0

    with pytest.raises(TooManyReadersError):
        answer(lambda: counting(1))


def test_without_asgi_only_a_stream_s_head_is_served() -> None:
    factory = APIRequestFactory()

    with pytest.raises(NoLiveStreamsError):
        stream_response(Request(factory.get("/")), counting(1))

    assert stream_response(Request(factory.head("/")), counting(1)).headers["Content-Type"] == "text/event-stream"


# --- A deferred response -----------------------------------------------------------------------------------


def deferred(later: Any, *, status: int = 202, client: Client | None = None) -> Client:
    """Serve one request to a view whose response waits for a later, better one."""
    receiver = client or Client()

    async def application(scope: Message, receive: Any, send: Any) -> None:
        defer_response(ASGIRequest(scope, BytesIO()), later)
        headers = {"X-From": "view", "Location": "/view"}
        await ASGIHandler().send_response(HttpResponse("view", status=status, headers=headers), send)

    async def run() -> Client:
        async with asyncio.timeout(5):
            await serve(application, dict(SCOPE), receiver.receive, receiver.send, body_of=receiver.receive)
        return receiver

    return asyncio.run(run())


def response_to(client: Client) -> tuple[int, dict[bytes, bytes], bytes]:
    headers = {name.lower(): value for name, value in client.sent[0]["headers"]}
    assert len(headers) == len(client.sent[0]["headers"])
    return client.sent[0]["status"], headers, client.body


async def better() -> HttpResponse | None:
    await asyncio.sleep(0.01)
    return HttpResponse("better", status=201, headers={"Location": "/better"})


async def nothing_better() -> HttpResponse | None:
    return None


async def failing() -> HttpResponse | None:
    raise RuntimeError("oh")


async def cancelled() -> HttpResponse | None:
    raise asyncio.CancelledError  # as on shutdown


def test_a_better_response_keeps_the_view_s_headers() -> None:
    status, headers, body = response_to(deferred(better))

    assert (status, body) == (201, b"better")
    assert (headers[b"location"], headers[b"x-from"], headers[b"content-length"]) == (b"/better", b"view", b"6")


@pytest.mark.parametrize("later", [nothing_better, failing, cancelled])
def test_the_view_s_own_response_is_the_fallback(later: Any) -> None:
    status, headers, body = response_to(deferred(later))

    assert (status, headers[b"location"], body) == (202, b"/view", b"view")


def test_an_error_is_not_deferred() -> None:
    assert response_to(deferred(better, status=500))[::2] == (500, b"view")


def test_a_disconnected_client_gets_nothing_and_the_wait_is_cancelled() -> None:
    ended: list[str] = []

    async def forever() -> HttpResponse | None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")
        return None

    client = Client()
    client._gone.set()

    assert deferred(forever, client=client).sent == []
    assert ended == ["ended"]


def test_at_the_limit_a_response_is_not_deferred(settings: Settings) -> None:
    settings.MAX_LIVE_READERS = streaming._live_limiter.open

    assert response_to(deferred(better))[0] == 202
    settings.MAX_LIVE_READERS += 1
    for _ in range(3):
        assert response_to(deferred(better))[0] == 201
