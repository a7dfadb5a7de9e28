"""Long responses: a view sets the body, which is sent after Django is done with the request.

Django holds a thread for as long as it handles a request. So it only decides on access, status and headers, as for any
request; then its thread is free, and the body costs no more than a task. Does not know what is sent.
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

_KEY = "chef.continuation"
# A client that does not accept one piece in this time is gone or barely reads, and occupies a connection.
STUCK_SECONDS = 60.0


class TooManyReadersError(RefusalError):
    code, status, retry_after = "too_many_readers", 503, 10

    def __init__(self) -> None:
        super().__init__("The server's limit of live streams or downloads is reached: try again later.")


class NoLiveStreamsError(RefusalError):
    """Django does not run under chef.asgi."""

    code, status = "not_acceptable", 406

    def __init__(self) -> None:
        super().__init__("Live streams need the ASGI server: start Chef with uvicorn.")


class _ConnectionLimiter:
    """Limits concurrent responses of one kind in this process to MAX_LIVE_READERS.

    Acquired in a request's thread, released in the event loop's.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.open = 0

    def acquire(self) -> None:
        with self._lock:
            if self.open >= settings.MAX_LIVE_READERS:
                raise TooManyReadersError
            self.open += 1

    def release(self) -> None:
        with self._lock:
            self.open -= 1


_live_limiter, _download_limiter = _ConnectionLimiter(), _ConnectionLimiter()
_ending_with_server: set["asyncio.Future[Any]"] = set()


class _Continuation:
    """What happens to a response after Django has created it: a body follows, or a later response may replace it."""

    def __init__(self) -> None:
        self.body: Body | None = None
        self.head: Message | None = None
        self.later: Later | None = None
        self.is_endless = False
        self._limiter = _live_limiter

    def send(self, body: Callable[[], Body], *, is_endless: bool) -> None:
        """Send `body()`, within the limit. Raises TooManyReadersError, and what `body` raises."""
        limiter = _live_limiter if is_endless else _download_limiter
        limiter.acquire()
        try:
            self.body = body()
        except BaseException:
            limiter.release()
            raise
        self.is_endless, self._limiter = is_endless, limiter

    def wait_for(self, later: Later) -> None:
        """Hold the response back for the result of `later`. Raises TooManyReadersError."""
        _live_limiter.acquire()
        self.later, self.is_endless = later, True

    async def close(self) -> None:
        if self.body is not None:
            self._limiter.release()
            await self.body.aclose()
        elif self.later is not None:
            self._limiter.release()


def stream_response(
    request: HttpRequest | Request, body: Body, *, media_type: str = "text/event-stream"
) -> HttpResponse:
    """The response to a GET whose body is sent after Django is done with the request; a HEAD gets only headers.

    Raises TooManyReadersError, and NoLiveStreamsError if the server is not chef.asgi.
    """
    response = HttpResponse(content_type=media_type)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"  # otherwise nginx buffers events and sends them late
    if request.method == "HEAD":
        return response
    continuation = _continuation_of(request)
    if continuation is None:
        raise NoLiveStreamsError
    continuation.send(lambda: body, is_endless=True)
    return response


def stream_download(
    request: HttpRequest, body: Callable[[], Body], headers: Mapping[str, str], *, status: int = 200
) -> HttpResponseBase:
    """The response to a GET whose body, of the length in the headers, is sent after Django is done with the request.

    `body` is called only within the limit. Raises TooManyReadersError, and what `body` raises. A server other than
    chef.asgi holds the request's thread until everything is sent.
    """
    continuation = _continuation_of(request)
    if continuation is None:
        return StreamingHttpResponse(body(), status=status, headers=headers)
    continuation.send(body, is_endless=False)
    return HttpResponse(status=status, headers=headers)


def defer_response(request: HttpRequest, later: Later) -> None:
    """Hold the view's response back until `later` returns a replacement, or None to send the view's own.

    The view's own is sent at once if the limit is reached or the server is not chef.asgi.
    """
    if continuation := _continuation_of(request):
        with contextlib.suppress(TooManyReadersError):
            continuation.wait_for(later)


def _continuation_of(request: Any) -> _Continuation | None:
    continuation: _Continuation | None = getattr(request, "scope", {}).get(_KEY)
    return continuation


async def serve(application: Any, scope: Message, receive: Receive, send: Send, *, body_of: Receive) -> None:
    """Handle one HTTP request with Django, then with what its view passed to one of the functions above.

    Django reads the request's body from `body_of`; `receive` reports a disconnect.
    """
    continuation = _Continuation()
    kept: list[Message] = []

    async def send_or_keep(message: Message) -> None:
        if continuation.later is not None:
            kept.append(message)
        elif continuation.body is None:
            await send(message)
        elif message["type"] == "http.response.start":
            continuation.head = message  # Django's own, empty body is dropped

    try:
        await application({**scope, _KEY: continuation}, body_of, send_or_keep)
        if continuation.body is not None and continuation.head is not None:
            head = continuation.head
            if continuation.is_endless:
                head = {**head, "headers": _without_length(head["headers"])}
            await send(head)
            await send_body(continuation.body, receive, send, ends_with_server=continuation.is_endless)
        if continuation.later is not None:
            for message in await _deferred(kept, continuation.later, receive):
                await send(message)
    finally:
        await continuation.close()


async def _deferred(kept: list[Message], later: Later, receive: Receive) -> list[Message]:
    """The messages to send: those of `later`, or those kept; none if the client has disconnected."""
    if not 200 <= kept[0]["status"] < 300:
        return kept  # an error raised after the view deferred its response
    _end_with_server()
    waiting, leaving = asyncio.ensure_future(later()), asyncio.create_task(_until_disconnected(receive))
    _ending_with_server.add(waiting)
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            return []
    finally:
        _ending_with_server.discard(waiting)
        waiting.cancel()
        leaving.cancel()
        await asyncio.gather(waiting, leaving, return_exceptions=True)
    if waiting.cancelled():
        return kept
    if error := waiting.exception():
        logger.error("a deferred response failed", exc_info=error)
        return kept
    if not (response := waiting.result()):
        return kept
    return _with_headers_of(kept[0], response)


def _with_headers_of(head: Message, response: HttpResponse) -> list[Message]:
    """A response as messages, plus the headers of `head` that it lacks."""
    new = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.items()]
    new.append((b"content-length", str(len(response.content)).encode()))
    names = {name for name, _ in new}
    old = [(name, value) for name, value in head["headers"] if name.lower() not in names]
    head = {**head, "status": response.status_code, "headers": [*old, *new]}
    return [head, {"type": "http.response.body", "body": response.content}]


def _without_length(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name.lower() != b"content-length"]


async def send_body(body: Body, receive: Receive, send: Send, *, ends_with_server: bool = False) -> None:
    """Send the body until it ends, the client disconnects, or, for an endless one, the server stops."""
    _end_with_server()
    sender = _Sender(body, send)
    sending = asyncio.create_task(sender.run())
    leaving, stuck = asyncio.create_task(_until_disconnected(receive)), asyncio.create_task(sender.until_stuck())
    if ends_with_server:
        _ending_with_server.add(sending)
    try:
        await asyncio.wait({sending, leaving, stuck}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        _ending_with_server.discard(sending)
        for task in (sending, leaving, stuck):
            task.cancel()
        await asyncio.gather(sending, leaving, stuck, return_exceptions=True)
    if stuck.done() and not stuck.cancelled():
        logger.warning("a client accepted nothing for %g s: closing its connection", STUCK_SECONDS)
        return  # the server closes a response that has not ended
    if not sending.cancelled() and (error := sending.exception()):
        raise error  # the server closes the connection, so that the client sees an error
    await send({"type": "http.response.body", "body": b""})


class _Sender:
    """Sends a body, and counts the pieces begun and done."""

    def __init__(self, body: Body, send: Send) -> None:
        self._body, self._send = body, send
        self.begun = self.done = 0

    async def run(self) -> None:
        async for piece in self._body:
            self.begun += 1
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            self.done += 1

    async def until_stuck(self) -> None:
        """Return when one piece has been stuck for STUCK_SECONDS. A timer per piece would cost more than sending it."""
        seen = -1
        while self.begun == self.done or self.begun != seen:
            seen = self.begun
            await asyncio.sleep(STUCK_SECONDS)


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


# --- The end of the server ---------------------------------------------------------------------------------------

_handled: list[asyncio.AbstractEventLoop] = []


def _end_with_server() -> None:
    """From now on, end all streams on SIGTERM. uvicorn does not notify responses when it stops: it waits for them."""
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGTERM)
    if loop in _handled or not callable(before) or threading.current_thread() is not threading.main_thread():
        return
    _handled[:] = [loop]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ending_streams(loop, signal.getsignal(number)))


def _ending_streams(loop: asyncio.AbstractEventLoop, before: Any) -> Callable[[int, FrameType | None], None]:
    def handle(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_end_all)
        if callable(before):
            before(number, frame)

    return handle


def _end_all() -> None:
    for task in _ending_with_server:
        task.cancel()
