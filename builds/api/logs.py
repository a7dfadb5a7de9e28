"""Logs, in the form that `Accept` asks for. `builds.live.readers` serves the live one, outside Django's threads."""

from typing import Any

from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiResponse
from rest_framework.request import Request
from rest_framework.response import Response

from builds.api.documents.builds import LogPage
from builds.api.streams import EventStream, PlainText, events, last_event_id
from builds.live.readers import log_stream
from builds.logs import writer as logs
from builds.logs.text import log_text
from builds.models import Build
from chef.web.downloads import send
from chef.web.streaming import hand_over

LOG_FORMS: dict[Any, Any] = {
    (200, "application/json"): LogPage,
    (200, "text/plain"): OpenApiResponse(str, description="The log as text, with byte ranges and an ETag."),
    (200, "text/event-stream"): events("log", description="Live: an event `log` for each entry."),
}


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
