"""Downloads: whole, ranges, conditional, refused; sent within the request or after it."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http import HttpResponseBase
from pytest_django import Settings
from rest_framework.request import Request

from chef.web import reading
from chef.web.downloads import Content, RangeNotSatisfiableError, send, send_made
from chef.web.reading import file_pieces
from chef.web.streaming import TooManyReadersError, serve

pytestmark = pytest.mark.once("postgresql")

PIECE = 1000
DATA = bytes(number * number % 251 for number in range(3 * PIECE + 7))
ETAG = '"abc"'


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def serve_view(view: Any, method: str, headers: dict[str, str]) -> Answer:
    """Serve one request to the view. Raises what the view raises."""
    sent: list[dict[str, Any]] = []
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": "/", "query_string": b"", "headers": raw}

    async def application(scope: Any, receive: Any, send: Any) -> None:
        response: HttpResponseBase = view(Request(ASGIRequest(scope, BytesIO())))
        await ASGIHandler().send_response(response, send)

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def record(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(serve(application, scope, receive, record, body_of=receive))
    start, *rest = sent
    assert not rest[-1].get("more_body")
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], headers, b"".join(message.get("body", b"") for message in rest))


@pytest.fixture(params=["by Django", "after Django"])
def outlives_request(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(reading, "PIECE_BYTES", PIECE)
    return bool(request.param == "after Django")


@pytest.fixture
def ask(outlives_request: bool) -> Any:
    def ask(method: str = "GET", *, data: bytes = DATA, file_name: str = "", **headers: str) -> Answer:
        def read(start: int, length: int) -> AsyncGenerator[bytes]:
            return file_pieces(BytesIO(data), start, length)

        content = Content(len(data), "text/x-test", ETAG.strip('"'), read, outlives_request=outlives_request)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return serve_view(lambda request: send(request, content, file_name=file_name), method, headers)

    return ask


# --- Whole files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 1])
def test_a_whole_file_is_sent_with_its_length(ask: Any, size: int) -> None:
    answer = ask(data=DATA[:size])

    assert (answer.status, answer.body) == (200, DATA[:size])
    assert answer.headers["Content-Length"] == str(size)
    assert (answer.headers["ETag"], answer.headers["Accept-Ranges"]) == (ETAG, "bytes")


def test_browsers_do_not_show_downloads_on_our_origin(ask: Any) -> None:
    headers = ask(file_name="ü.html").headers

    assert headers["Content-Type"] == "text/x-test"
    assert headers["Content-Disposition"] == "attachment; filename*=utf-8''%C3%BC.html"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("sandbox")


def test_a_head_request_ignores_ranges(ask: Any) -> None:
    for headers in ({}, {"Range": "bytes=5-9"}, {"Range": "bytes=99999-"}):
        answer = ask("HEAD", **headers)

        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["Content-Length"] == str(len(DATA))
        assert "Content-Range" not in answer.headers


# --- Ranges ----------------------------------------------------------------------------------------------------------

LAST = len(DATA) - 1


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("0-0", 0, 0),
        (f"0-{PIECE - 1}", 0, PIECE - 1),
        (f"0-{PIECE}", 0, PIECE),
        (f"{PIECE - 1}-{PIECE}", PIECE - 1, PIECE),
        (f"{PIECE}-{2 * PIECE - 1}", PIECE, 2 * PIECE - 1),
        (f"{PIECE + 1}-", PIECE + 1, LAST),
        (f"{LAST}-", LAST, LAST),
        (f"{LAST}-{LAST}", LAST, LAST),
        ("10-999999", 10, LAST),
        ("-1", LAST, LAST),
        (f"-{PIECE}", LAST - PIECE + 1, LAST),
        ("-999999", 0, LAST),
        ("0-", 0, LAST),
    ],
)
def test_a_requested_range_is_sent(ask: Any, asked: str, first: int, last: int) -> None:
    answer = ask(Range=f"bytes={asked}")

    assert (answer.status, answer.body) == (206, DATA[first : last + 1])
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(DATA)}"
    assert answer.headers["Content-Length"] == str(last + 1 - first)


@pytest.mark.parametrize("asked", [f"{len(DATA)}-", f"{len(DATA)}-99999", "99999-", "-0"])
def test_a_range_beyond_the_end_is_refused_with_the_size(ask: Any, asked: str) -> None:
    with pytest.raises(RangeNotSatisfiableError) as refused:
        ask(Range=f"bytes={asked}")

    assert refused.value.status == 416
    assert refused.value.headers == {"Content-Range": f"bytes */{len(DATA)}"}


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "bytes=9-5", "bytes=-", "bytes=a-b", "lines=0-1", "bytes 0-1", ""])
def test_anything_but_a_single_range_returns_the_whole_file(ask: Any, asked: str) -> None:
    answer = ask(Range=asked)

    assert (answer.status, answer.body) == (200, DATA)
    assert "Content-Range" not in answer.headers


@pytest.mark.parametrize(
    ("if_range", "status"),
    [(ETAG, 206), ('"other"', 200), (f"W/{ETAG}", 200), ("Wed, 01 Jan 2025 00:00:00 GMT", 200)],
)
def test_if_range_returns_the_range_only_of_the_same_version(ask: Any, if_range: str, status: int) -> None:
    answer = ask(Range="bytes=2-5", If_Range=if_range)

    assert (answer.status, answer.body) == (status, DATA[2:6] if status == 206 else DATA)


# --- Conditional requests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [ETAG, f"W/{ETAG}", "*", f'"x", {ETAG}'])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_unchanged_file_is_not_sent(ask: Any, known: str, method: str) -> None:
    answer = ask(method, If_None_Match=known, Range="bytes=0-1")

    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["ETag"] == ETAG


def test_a_changed_file_is_sent(ask: Any) -> None:
    assert ask(If_None_Match='"x", "y"').body == DATA


# --- After the request -----------------------------------------------------------------------------------------------


def test_a_missing_file_is_an_error_before_anything_is_sent() -> None:
    def read(start: int, length: int) -> AsyncGenerator[bytes]:
        raise FileNotFoundError("gone")

    content = Content(5, "text/plain", "x", read, outlives_request=True)

    with pytest.raises(FileNotFoundError):
        serve_view(lambda request: send(request, content), "GET", {})


def test_a_download_beyond_the_limit_is_refused_and_opens_nothing(settings: Settings) -> None:
    settings.MAX_LIVE_READERS = 0

    def read(start: int, length: int) -> AsyncGenerator[bytes]:
        raise AssertionError("opened")

    content = Content(5, "text/plain", "x", read, outlives_request=True)

    with pytest.raises(TooManyReadersError):
        serve_view(lambda request: send(request, content), "GET", {})


def test_a_finished_download_no_longer_counts(settings: Settings, ask: Any) -> None:
    settings.MAX_LIVE_READERS = 1

    for _ in range(3):
        assert ask().body == DATA


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_generated_content_is_sent_with_its_length(method: str) -> None:
    def made() -> Generator[bytes]:
        yield from (b"ab", b"", b"c")

    def view(request: Any) -> HttpResponseBase:
        return send_made(request, made(), media_type="application/zip", file_name="all.zip", size=3)

    answer = serve_view(view, method, {})

    assert (answer.status, answer.body) == (200, b"abc" if method == "GET" else b"")
    assert answer.headers["Content-Length"] == "3"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="all.zip"'
