"""Answers that may go on for minutes: a view says what follows, and it is sent when Django is done with the request.

Django keeps a thread for as long as a request is under way. So it only decides, like for any other request, who may
and with which status and headers; then its thread is free, and the body costs no more than a task. Knows nothing of
what is sent.
"""

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from types import FrameType
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from rest_framework.request import Request

from chef.refusals import RefusalError

logger = logging.getLogger(__name__)

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Body = AsyncGenerator[bytes]
Later = Callable[[], Awaitable[HttpResponse | None]]

_KEY = "chef.handover"
# A reader that takes not one piece in so long is gone, or hardly reads: it keeps its place from others.
STUCK_SECONDS = 60.0


class TooManyReadersError(RefusalError):
    code, status, retry_after = "too_many_readers", 503, 10

    def __init__(self) -> None:
        super().__init__("As many live streams or downloads are open as this server takes: come back later.")


class NoLiveStreamsError(RefusalError):
    """The server that runs Django is not chef.asgi."""

    code, status = "not_acceptable", 406

    def __init__(self) -> None:
        super().__init__("Live streams need the ASGI server: start Chef with uvicorn.")


class _Places:
    """How many streams there may be at once in this process. Taken in a request's thread, given back in the loop's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = 0

    def take(self) -> None:
        with self._lock:
            if self._taken >= settings.MAX_LIVE_READERS:
                raise TooManyReadersError
            self._taken += 1

    def give_back(self) -> None:
        with self._lock:
            self._taken -= 1


_live_places, _download_places = _Places(), _Places()
_sending: set["asyncio.Future[Any]"] = set()


class _Handover:
    """One request, from Django to the stream that follows."""

    def __init__(self) -> None:
        self.body: Body | None = None
        self.head: Message | None = None
        self.later: Later | None = None
        self.is_endless = False
        self._places = _live_places

    def take(self, body: Callable[[], Body], *, is_endless: bool) -> None:
        """Have what `body` gives sent, if there is a place. Raises TooManyReadersError, and what `body` raises."""
        places = _live_places if is_endless else _download_places
        places.take()
        try:
            self.body = body()
        except BaseException:
            places.give_back()
            raise
        self.is_endless, self._places = is_endless, places

    def wait_for(self, later: Later) -> None:
        """Have the answer held back for what `later` gives. Raises TooManyReadersError."""
        _live_places.take()
        self.later, self.is_endless = later, True

    async def close(self) -> None:
        if self.body is not None:
            self._places.give_back()
            await self.body.aclose()
        elif self.later is not None:
            self._places.give_back()


def hand_over(request: HttpRequest | Request, body: Body, *, media_type: str = "text/event-stream") -> HttpResponse:
    """The answer to a GET whose body is sent after Django has let go of the request; a HEAD gets the headers alone.

    Raises TooManyReadersError, and NoLiveStreamsError where the server is not chef.asgi.
    """
    response = HttpResponse(content_type=media_type)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would gather events, and send them late
    if request.method == "HEAD":
        return response
    handover = _handover_of(request)
    if handover is None:
        raise NoLiveStreamsError
    handover.take(lambda: body, is_endless=True)
    return response


def hand_over_download(
    request: HttpRequest, body: Callable[[], Body], headers: Mapping[str, str], *, status: int = 200
) -> HttpResponseBase:
    """The answer to a GET whose body, of the length that the headers tell, is sent after Django has let go of it.

    `body` is called once there is a place for it. Raises TooManyReadersError, and what `body` raises. A server that
    is not chef.asgi keeps the request's thread until all is sent.
    """
    handover = _handover_of(request)
    if handover is None:
        return StreamingHttpResponse(body(), status=status, headers=headers)
    handover.take(body, is_endless=False)
    return HttpResponse(status=status, headers=headers)


def answer_later(request: HttpRequest, later: Later) -> None:
    """Hold the view's answer back until `later` gives a better one, or None: then the view's own is sent.

    Its own is sent at once where there is no place for one that waits, or the server is not chef.asgi.
    """
    if handover := _handover_of(request):
        with contextlib.suppress(TooManyReadersError):
            handover.wait_for(later)


def _handover_of(request: Any) -> _Handover | None:
    handover: _Handover | None = getattr(request, "scope", {}).get(_KEY)
    return handover


async def serve(application: Any, scope: Message, receive: Receive, send: Send, *, body_of: Receive) -> None:
    """Answer one HTTP request by Django, and then by what its view has handed over, if it has.

    Django reads the request's body from `body_of`; that the client has left is learnt from `receive`.
    """
    handover = _Handover()
    kept: list[Message] = []

    async def send_or_keep(message: Message) -> None:
        if handover.later is not None:
            kept.append(message)
        elif handover.body is None:
            await send(message)
        elif message["type"] == "http.response.start":
            handover.head = message  # and there is no body of Django's

    try:
        await application({**scope, _KEY: handover}, body_of, send_or_keep)
        if handover.body is not None and handover.head is not None:
            head = handover.head
            if handover.is_endless:
                head = {**head, "headers": _without_length(head["headers"])}
            await send(head)
            await send_body(handover.body, receive, send, ends_with_server=handover.is_endless)
        if handover.later is not None:
            for message in await _better(kept, handover.later, receive):
                await send(message)
    finally:
        await handover.close()


async def _better(kept: list[Message], later: Later, receive: Receive) -> list[Message]:
    """What to send: what `later` gives, or what was kept; nothing to a client that has left."""
    if not 200 <= kept[0]["status"] < 300:
        return kept  # an error, raised after the view had promised more
    _end_with_the_server()
    waiting, leaving = asyncio.ensure_future(later()), asyncio.create_task(_until_gone(receive))
    _sending.add(waiting)
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            return []
    finally:
        _sending.discard(waiting)
        waiting.cancel()
        leaving.cancel()
        await asyncio.gather(waiting, leaving, return_exceptions=True)
    if waiting.cancelled():
        return kept
    if fault := waiting.exception():
        logger.error("what an answer was held back for has failed", exc_info=fault)
        return kept
    if not (response := waiting.result()):
        return kept
    new = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.items()]
    new.append((b"content-length", str(len(response.content)).encode()))
    names = {name for name, _ in new}
    old = [(name, value) for name, value in kept[0]["headers"] if name.lower() not in names]
    head = {**kept[0], "status": response.status_code, "headers": [*old, *new]}
    return [head, {"type": "http.response.body", "body": response.content}]


def _without_length(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name.lower() != b"content-length"]


async def send_body(body: Body, receive: Receive, send: Send, *, ends_with_server: bool = False) -> None:
    """Send the body until it ends, the client leaves, or, if it has no end of its own, the server stops."""
    _end_with_the_server()
    sender = _Sender(body, send)
    sending = asyncio.create_task(sender.run())
    leaving, stuck = asyncio.create_task(_until_gone(receive)), asyncio.create_task(sender.until_stuck())
    if ends_with_server:
        _sending.add(sending)
    try:
        await asyncio.wait({sending, leaving, stuck}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        _sending.discard(sending)
        for task in (sending, leaving, stuck):
            task.cancel()
        await asyncio.gather(sending, leaving, stuck, return_exceptions=True)
    if stuck.done() and not stuck.cancelled():
        logger.warning("a reader has not taken one piece in %g s: its connection is closed", STUCK_SECONDS)
        return  # the server closes what has not been ended
    if not sending.cancelled() and (fault := sending.exception()):
        raise fault  # the server closes the connection: nobody takes this for the end
    await send({"type": "http.response.body", "body": b""})


class _Sender:
    """Sends a body, and notes how far it is."""

    def __init__(self, body: Body, send: Send) -> None:
        self._body, self._send = body, send
        self.begun = self.done = 0

    async def run(self) -> None:
        async for piece in self._body:
            self.begun += 1
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            self.done += 1

    async def until_stuck(self) -> None:
        """Until one piece has not been taken for so long. A timer for each piece would cost more than sending it."""
        seen = -1
        while self.begun == self.done or self.begun != seen:
            seen = self.begun
            await asyncio.sleep(STUCK_SECONDS)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


# --- The end of the server ---------------------------------------------------------------------------------------

_watched: list[asyncio.AbstractEventLoop] = []


def _end_with_the_server() -> None:
    """End all streams on SIGTERM. uvicorn tells nobody that it stops: it waits until every answer has ended."""
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGTERM)
    if loop in _watched or not callable(before) or threading.current_thread() is not threading.main_thread():
        return
    _watched[:] = [loop]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ending_first(loop, signal.getsignal(number)))


def _ending_first(loop: asyncio.AbstractEventLoop, before: Any) -> Callable[[int, FrameType | None], None]:
    def handle(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(_end_all)
        if callable(before):
            before(number, frame)

    return handle


def _end_all() -> None:
    for task in _sending:
        task.cancel()
