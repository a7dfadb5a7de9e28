"""Logs in the forms that `Accept` chooses among. `builds.live` serves the live one, outside of Django's threads."""

import json
import re
from typing import Any

from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiResponse
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from builds import logs
from builds.live import log_stream
from builds.log_text import log_text
from builds.models import Build
from builds.serializers import LogPage
from chef.downloads import send
from chef.streams import hand_over


def events(*kinds: str, description: str) -> OpenApiResponse:
    """For the schema: what each event of a live stream is made of."""
    event = {
        "type": "object",
        "properties": {
            "event": {"enum": [*kinds, "end"]},
            "id": {"type": "string", "description": "Send it as `Last-Event-ID` to go on after this event."},
            "data": {"type": "string", "contentMediaType": "application/json"},
        },
        "required": ["event", "data"],
    }
    return OpenApiResponse(event, description=f"{description} A last event `end` closes the stream.")


LOG_FORMS: dict[Any, Any] = {
    (200, "application/json"): LogPage,
    (200, "text/plain"): OpenApiResponse(str, description="The log as text, with byte ranges and an ETag."),
    (200, "text/event-stream"): events("log", description="Live: an event `log` for each entry."),
}


class PlainText(BaseRenderer):
    media_type = "text/plain"
    format = "txt"

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        return json.dumps(data).encode()  # only errors come here, and those are given another renderer


class EventStream(PlainText):
    media_type = "text/event-stream"
    format = "events"


def last_event_id(request: Request, pattern: str) -> str:
    """Where a reader that was cut off goes on: it counts more than the address, which stays that of the first time."""
    found = request.headers.get("Last-Event-ID", "")
    if found and not re.fullmatch(pattern, found, re.ASCII):
        detail = "This stream gave no event such an id: send the last one as it came, or leave it out."
        raise ValidationError({"Last-Event-ID": [ErrorDetail(detail, code="invalid")]})
    return found


def answer_logs(request: Request, build: Build, query: dict[str, Any]) -> HttpResponseBase:
    """The log of the build's current attempt, in the form that was asked for."""
    form = request.accepted_renderer.media_type
    if form == PlainText.media_type:
        return send(request, log_text(build, without_colours=query["ansi"] == "strip"))
    if form == EventStream.media_type:
        after = last_event_id(request, r"\d{1,9}\.\d{1,9}") or query.get("after", "")
        return hand_over(request, log_stream(build.pk, after=after, phase=query.get("phase", "")))
    limit = query["limit"]
    chunks, cursor = logs.read(build, after=query.get("after", ""), phase=query.get("phase", ""), limit=limit)
    page = {
        "project_id": build.project_id,
        "job_id": build.pk,
        "entries": chunks,
        "next_cursor": cursor,
        # The build was read first: had it ended then, no line can have come since.
        "complete": build.is_terminal and len(chunks) < limit,
        "truncated": build.log_truncated,
    }
    return Response(LogPage(page).data)
