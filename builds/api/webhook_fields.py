"""Fields for webhook URLs and events, and the DNS check that view sets do before they accept a URL."""

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from django.utils.dateparse import parse_datetime
from rest_framework import serializers
from rest_framework.request import Request

from builds.models import EventName
from builds.webhooks import guard
from chef.web.errors import refusals_as_invalid
from projects.api.typed_fields import Choice, Text
from projects.api.views import ApiViewSet


class UrlField(Text):
    """A webhook URL. `context["refusal"]`: why the DNS look-up of its host refused it, if it did."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=guard.MAX_URL_CHARS, **kwargs)

    def schema(self) -> dict[str, Any]:
        return {
            "type": "string",
            "format": "uri",
            "maxLength": guard.MAX_URL_CHARS,
            "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[!-~]+$",
            "description": "A public https:// URL without user name and fragment.",
        }

    def to_internal_value(self, data: Any) -> str:
        url = super().to_internal_value(data)
        with refusals_as_invalid():
            guard.parse(url)
            if refusal := self.context.get("refusal"):
                raise refusal
        return url


class EventsField(serializers.ListField):
    """Unique names of events; their number is checked first."""

    max_items = 20

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(child=Choice(choices=EventName.choices), min_length=1, max_length=self.max_items, **kwargs)

    def to_internal_value(self, data: Any) -> list[Any]:
        if isinstance(data, list) and len(data) > self.max_items:
            raise serializers.ValidationError(f"Send at most {self.max_items} events.", code="too_many")
        return list(dict.fromkeys(super().to_internal_value(data)))


class TimestampField(Text):
    """A time with a time zone, in RFC 3339 format."""

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "format": "date-time"}

    def to_internal_value(self, data: Any) -> Any:
        text = super().to_internal_value(data)
        try:
            moment = parse_datetime(text.upper())
            if moment is not None and moment.tzinfo is not None:
                return moment.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        raise serializers.ValidationError("Send a time with a time zone, such as 2026-01-31T12:00:00Z.", code="invalid")


class UrlViewSet(ApiViewSet):
    """For view sets that accept a webhook URL. Its host is resolved before the handler is called.

    With an Idempotency-Key the handler runs in a transaction, which must not wait for a DNS server.
    """

    url_name: str
    url_actions: frozenset[str]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.refusal: guard.UrlRefusedError | None = None
        if self.action in self.url_actions and isinstance(request.data, Mapping):
            url = request.data.get(self.url_name)
            if isinstance(url, str):
                self.refusal = guard.refusal_when_saved(url)
