"""A build's log for its page: rendered lines without JavaScript; text and one live stream for the script."""

import gzip
from dataclasses import dataclass
from urllib.parse import urlencode
from uuid import UUID

import orjson
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_GET

from builds.live.streams import PagePosition, page_stream
from builds.logs.entries import Cursor
from builds.logs.lines import Line, LogIndex, find_evidence, read_page
from builds.logs.text import log_text
from builds.models import Build
from builds.pages.access import visible_builds
from builds.pages.refusals import refusals_as_text
from chef.web.downloads import send
from chef.web.streaming import stream_response

LINES_SHOWN = 300
PAGE_BYTES = 2 * 1024**2
# The most that the script keeps: more than CHEF_MAX_LOG_BYTES allows in a log, unless an operator raises that. Browsers
# limit an element's height to some 33 million pixels.
KEPT_BYTES, KEPT_LINES = 12 * 1024**2, 1_000_000


@dataclass(frozen=True)
class Window:
    """Consecutive lines of a log that has `last` lines in all."""

    lines: list[Line]
    first: int
    last: int

    @property
    def end(self) -> int:
        return min(self.first + LINES_SHOWN - 1, self.last)

    @property
    def earlier(self) -> int:
        """The first line of the previous window; 0 if there is none."""
        return max(self.first - LINES_SHOWN, 1) if self.first > 1 else 0

    @property
    def later(self) -> int:
        return self.end + 1 if self.end < self.last else 0


@dataclass(frozen=True)
class Evidence:
    """One line of a verdict's evidence, its line number in the log (0 if it is not found) and a link to it."""

    text: str
    number: int
    href: str


def window_of(index: LogIndex, asked: str) -> Window:
    """The lines from number `asked` on; without a valid number, the last ones."""
    last = index.last
    tail = max(last - LINES_SHOWN + 1, 1)
    first = min(max(int(asked), 1), max(last, 1)) if asked.isdecimal() and len(asked) < 10 else tail
    return Window(index.lines(first, min(first + LINES_SHOWN - 1, last)), first, last)


def evidence_of(build: Build, index: LogIndex, window: Window) -> list[Evidence]:
    if not build.verdict:
        return []
    numbers = find_evidence(build, index)
    numbered = [(text, numbers.get(text, 0)) for text in build.verdict.get("evidence", [])]
    return [Evidence(text, number, _href(build, number, window)) for text, number in numbered]


def _href(build: Build, number: int, window: Window) -> str:
    if not number or window.first <= number <= window.end:
        return f"#L{number}"
    query = urlencode({"log": max(number - LINES_SHOWN // 3, 1)})
    return f"{reverse('build-page', args=[build.pk])}?{query}#L{number}"


@login_required
@require_GET
def log_page(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The log's text after a cursor, with its line data: see builds.logs.lines.Page."""
    build = get_object_or_404(visible_builds(request).only("fence", "log_bytes"), pk=pk)
    try:
        after = Cursor.parse(request.GET.get("after", ""))
    except ValueError:
        return HttpResponse(status=400)
    page = read_page(build, after=after, most_bytes=PAGE_BYTES, kept_bytes=KEPT_BYTES, kept_lines=KEPT_LINES)
    body = orjson.dumps(page.as_json())
    response = HttpResponse(body, content_type="application/json")
    response.headers["Vary"] = "Accept-Encoding, Cookie"
    response.headers["Cache-Control"] = "no-store"
    # It holds no secret of the application, so its compressed length leaks nothing (BREACH). The fastest level, since
    # most logs are read over a fast network.
    if len(body) > 1000 and "gzip" in request.headers.get("Accept-Encoding", ""):
        response.content = gzip.compress(body, compresslevel=1)
        response.headers["Content-Encoding"] = "gzip"
    return response


@login_required
@require_GET
@refusals_as_text
def log_as_text(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """The whole log as text, without colours."""
    build = get_object_or_404(visible_builds(request), pk=pk)
    return send(request, log_text(build, without_colours=True))


@login_required
@require_GET
@refusals_as_text
def stream(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """The log after a cursor and the changes after an event, live; a client resumes by its Last-Event-ID."""
    build = get_object_or_404(visible_builds(request).only("pk"), pk=pk)
    try:
        after = PagePosition.parse(request.headers.get("Last-Event-ID") or request.GET.get("after") or "0.0-0")
        return stream_response(request, page_stream(build.pk, after=after))
    except ValueError:
        return HttpResponse(status=400)
