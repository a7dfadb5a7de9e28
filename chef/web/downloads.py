"""Downloads: whole, in part (RFC 9110 ranges), or headers only (the client's copy is current, or a HEAD).

The body is an asynchronous iterator, so that it is sent as it is read: Django would buffer a synchronous one in memory.
A body that needs no database is sent after Django is done with the request, so that a slow client blocks no thread.
"""

import re
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.http import content_disposition_header, parse_etags

from chef.refusals import RefusalError
from chef.web.reading import made_in_threads
from chef.web.streaming import stream_download

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class RangeNotSatisfiableError(RefusalError):
    code, status = "range_not_satisfiable", 416

    def __init__(self, size: int) -> None:
        super().__init__("The range is beyond the end: request one that starts within the content.")
        self._size = size

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Content-Range": f"bytes */{self._size}"}


@dataclass(frozen=True)
class Content:
    """What can be sent: its size in bytes, its media type, a strong ETag without quotes, and how to read a part of it.

    `read(start, length)` yields `length` bytes from `start`, in pieces. Content that `outlives_request` is read without
    the request's thread, and so without its database connection: a slow client blocks no thread.
    """

    size: int
    media_type: str
    etag: str
    read: Callable[[int, int], AsyncGenerator[bytes]]
    outlives_request: bool = False


def send(request: HttpRequest, content: Content, *, file_name: str = "") -> HttpResponseBase:
    """The response to a GET or HEAD. With a file name it is an attachment, which browsers do not show on our origin.

    A request for several ranges gets the whole content, as RFC 9110 allows. Raises RangeNotSatisfiableError,
    TooManyReadersError, and what `content.read` raises before its first piece.
    """
    etag = f'"{content.etag}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    if file_name:
        headers["Content-Disposition"] = str(content_disposition_header(True, file_name))
    known = {tag.removeprefix("W/") for tag in parse_etags(request.headers.get("If-None-Match", ""))}
    if known & {etag, "*"}:
        return HttpResponse(status=304, headers=headers)
    # RFC 9110 defines ranges only for GET: a HEAD describes the whole.
    wanted = "" if request.method == "HEAD" else request.headers.get("Range", "")
    part = part_of(wanted, request.headers.get("If-Range", ""), content.size, etag)
    start, length = part or (0, content.size)
    headers["Content-Length"] = str(length)
    if part:
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{content.size}"
    headers["Content-Type"] = content.media_type
    if request.method == "HEAD":
        return HttpResponse(headers=headers)
    status = 206 if part else 200
    body = partial(content.read, start, length)
    if content.outlives_request:
        return stream_download(request, body, headers, status=status)
    return StreamingHttpResponse(body(), status=status, headers=headers)


def send_made(
    request: HttpRequest, pieces: Generator[bytes], *, media_type: str, file_name: str, size: int
) -> HttpResponseBase:
    """An attachment of `size` bytes, generated while it is sent, without the request's thread and database connection.

    Raises TooManyReadersError.
    """
    headers = {**_attached(media_type, file_name), "Content-Length": str(size)}
    if request.method == "HEAD":
        pieces.close()
        return HttpResponse(headers=headers)
    return stream_download(request, partial(made_in_threads, pieces), headers)


def send_stream(request: HttpRequest, pieces: Generator[bytes], *, media_type: str, file_name: str) -> HttpResponseBase:
    """An attachment that is generated while it is sent, in the request's thread."""
    headers = _attached(media_type, file_name)
    if request.method == "HEAD":
        pieces.close()
        return HttpResponse(headers=headers)
    return StreamingHttpResponse(_in_thread(pieces), headers=headers)


def _attached(media_type: str, file_name: str) -> dict[str, str]:
    return {
        "Content-Type": media_type,
        "Content-Disposition": str(content_disposition_header(True, file_name)),
        "X-Content-Type-Options": "nosniff",
    }


async def _in_thread(pieces: Generator[bytes]) -> AsyncGenerator[bytes]:
    """The same pieces, each made in the request's own thread, because a database connection belongs to one thread."""
    try:
        following = sync_to_async(partial(next, pieces, None))
        while (piece := await following()) is not None:
            yield piece
    finally:
        await sync_to_async(pieces.close)()


def part_of(wanted: str, if_range: str, size: int, etag: str) -> tuple[int, int] | None:
    """(start, length) of a Range header, None for the whole; `etag` with its quotes.

    Raises RangeNotSatisfiableError.
    """
    match = _RANGE.fullmatch(wanted.strip())
    if not match or match.groups() == ("", "") or (if_range or etag) != etag:
        return None
    first, last = match.groups()
    if not first:  # the last N bytes
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < int(first):
            return None
    if start >= size or start >= end:
        raise RangeNotSatisfiableError(size)
    return start, end - start
