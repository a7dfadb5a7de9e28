"""Logs and live events over the API: media types, schema, and resuming.

builds.live provides the live data and documents how a line gets there.
"""

import json
import re
from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol
from uuid import UUID

from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.decorators import action
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from builds.api.documents.builds import LogPage
from builds.api.requests import EventsQuery
from builds.live.streams import log_stream
from builds.logs.entries import CURSOR_PATTERN, Cursor, read_entries
from builds.logs.text import log_text
from builds.models import Build
from chef.web.downloads import send
from chef.web.streaming import stream_response


class EventStream(Protocol):
    def __call__(self, job_id: UUID, /, *, after: int) -> AsyncGenerator[bytes]: ...


class PlainText(BaseRenderer):
    media_type = "text/plain"
    format = "txt"

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        return json.dumps(data).encode()  # only errors get here, and those are rendered as JSON


class ServerSentEvents(PlainText):
    media_type = "text/event-stream"
    format = "events"


def events(*kinds: str, description: str) -> OpenApiResponse:
    """For the schema: the fields of each event of a live stream."""
    event = {
        "type": "object",
        "properties": {
            "event": {"enum": [*kinds, "end"]},
            "id": {"type": "string", "description": "Send it as `Last-Event-ID` to continue after this event."},
            "data": {"type": "string", "contentMediaType": "application/json"},
        },
        "required": ["event", "data"],
    }
    return OpenApiResponse(event, description=f"{description} The last event is `end`.")


def last_event_id(request: Request, pattern: str) -> str:
    """Where a reconnecting client continues. Overrides the URL's `after`, which is that of the first request."""
    found = request.headers.get("Last-Event-ID", "")
    if found and not re.fullmatch(pattern, found, re.ASCII):
        detail = "This is not an event id of this stream: send the last id you received, or leave it out."
        raise ValidationError({"Last-Event-ID": [ErrorDetail(detail, code="invalid")]})
    return found


def event_stream_action(operation_id: str, *kinds: str, description: str) -> Callable[[Any], Any]:
    """Decorates a view set's method that streams the events of one job."""
    schema = extend_schema(
        operation_id=operation_id,
        parameters=[
            EventsQuery,
            OpenApiParameter("Last-Event-ID", int, OpenApiParameter.HEADER, description="Continue after this event."),
        ],
        responses={(200, "text/event-stream"): events(*kinds, description=description)},
    )
    return lambda view: schema(action(detail=True, renderer_classes=[ServerSentEvents])(view))


def stream_events(request: Request, events: EventStream, job_id: UUID) -> HttpResponseBase:
    """The events of a job that follow the one named by the client. Raises ValidationError and TooManyReadersError."""
    after = EventsQuery.of(request).get("after", 0)
    return stream_response(request, events(job_id, after=int(last_event_id(request, r"\d{1,18}") or after)))


# --- Logs --------------------------------------------------------------------------------------------------------

LOG_RENDERERS = [JSONRenderer, PlainText, ServerSentEvents]
LOG_RESPONSES: dict[Any, Any] = {
    (200, "application/json"): LogPage,
    (200, "text/plain"): OpenApiResponse(str, description="The log as text, with byte ranges and an ETag."),
    (200, "text/event-stream"): events("log", description="Live: an event `log` for each entry."),
}


def answer_logs(request: Request, build: Build, query: dict[str, Any]) -> HttpResponseBase:
    """The log of the build's current attempt, in the media type that `Accept` asks for."""
    media_type = request.accepted_renderer.media_type
    if media_type == PlainText.media_type:
        return send(request, log_text(build, without_colours=query["ansi"] == "strip"))
    phase = query.get("phase", "")
    if media_type == ServerSentEvents.media_type:
        after = Cursor.parse(last_event_id(request, CURSOR_PATTERN) or query.get("after", ""))
        return stream_response(request, log_stream(build.pk, after=after, phase=phase))
    limit = query["limit"]
    chunks, cursor = read_entries(build, after=Cursor.parse(query.get("after", "")), phase=phase, limit=limit)
    page = {
        "project_id": build.project_id,
        "job_id": build.pk,
        "entries": chunks,
        "next_cursor": str(cursor),
        # The build was read before its lines: if it had ended, no line can have been added since.
        "complete": build.is_terminal and len(chunks) < limit,
        "truncated": build.log_truncated,
    }
    return Response(LogPage(page).data)
