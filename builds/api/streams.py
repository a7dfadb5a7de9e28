"""What doors to live streams of events share: their form, their place in the schema, and where a reader goes on."""

import json
import re
from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol
from uuid import UUID

from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.decorators import action
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from builds.api.requests import WatchQuery
from chef.web.streaming import hand_over


class Stream(Protocol):
    def __call__(self, job_id: UUID, /, *, after: int) -> AsyncGenerator[bytes]: ...


class PlainText(BaseRenderer):
    media_type = "text/plain"
    format = "txt"

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        return json.dumps(data).encode()  # only errors come here, and those are given another renderer


class EventStream(PlainText):
    media_type = "text/event-stream"
    format = "events"


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


def last_event_id(request: Request, pattern: str) -> str:
    """Where a reader that was cut off goes on: it counts more than the address, which stays that of the first time."""
    found = request.headers.get("Last-Event-ID", "")
    if found and not re.fullmatch(pattern, found, re.ASCII):
        detail = "This stream gave no event such an id: send the last one as it came, or leave it out."
        raise ValidationError({"Last-Event-ID": [ErrorDetail(detail, code="invalid")]})
    return found


def watches(operation_id: str, *kinds: str, description: str) -> Callable[[Any], Any]:
    """Makes a method of a viewset the door to the events of one job."""
    schema = extend_schema(
        operation_id=operation_id,
        parameters=[
            WatchQuery,
            OpenApiParameter("Last-Event-ID", int, OpenApiParameter.HEADER, description="Go on after this event."),
        ],
        responses={(200, "text/event-stream"): events(*kinds, description=description)},
    )
    return lambda door: schema(action(detail=True, renderer_classes=[EventStream])(door))


def watch(request: Request, stream: Stream, job_id: UUID) -> HttpResponseBase:
    """The events of a job after the one that the reader names, live. Raises ValidationError and TooManyReadersError."""
    after = WatchQuery.of(request).get("after", 0)
    return hand_over(request, stream(job_id, after=int(last_event_id(request, r"\d{1,18}") or after)))
