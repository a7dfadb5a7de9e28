"""Cursor pagination: a page costs the same however deep it is, and no row appears twice."""

from typing import Any

from django.conf import settings
from django.utils.dateparse import parse_datetime
from rest_framework.exceptions import ErrorDetail, NotFound, ValidationError
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request


class NewestFirst(CursorPagination):
    """`?limit=` up to 100, and `?cursor=`, taken from `next` and `previous`."""

    page_size = 25
    max_page_size = 100
    page_size_query_param = "limit"
    page_size_query_description = "Items per page, from 1 to 100."
    ordering: tuple[str, ...] = ("-created_at", "-id")

    def get_page_size(self, request: Request) -> int:
        text = request.query_params.get("limit", str(self.page_size))
        if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= self.max_page_size:
            return int(text)
        detail = f"Set limit to a number from 1 to {self.max_page_size}."
        raise ValidationError({"limit": [ErrorDetail(detail, code="out_of_range")]})

    def decode_cursor(self, request: Request) -> Cursor | None:
        try:
            cursor = super().decode_cursor(request)
        except (NotFound, ValueError):
            raise self._refusal() from None
        if cursor and cursor.position is not None and not self.is_position(str(cursor.position)):
            raise self._refusal()
        return cursor

    def is_position(self, text: str) -> bool:
        """Whether it is a valid position: a time with its zone."""
        try:
            moment = parse_datetime(text)
        except ValueError:
            return False
        return moment is not None and moment.tzinfo is not None

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any] | None:
        page: list[Any] | None = super().paginate_queryset(queryset, request, view)
        if settings.CHEF_URL:
            self.base_url = settings.CHEF_URL + request.get_full_path()
        return page

    def _refusal(self) -> ValidationError:
        detail = "The cursor is not from this list: use `next` or `previous` unchanged."
        return ValidationError({"cursor": [ErrorDetail(detail, code="invalid_cursor")]})


class HighestNumberFirst(NewestFirst):
    """For rows numbered within their parent."""

    ordering = ("-number",)

    def is_position(self, text: str) -> bool:
        return text.isascii() and text.isdigit() and len(text) < 10
