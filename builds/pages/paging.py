"""Paged lists, with the same cursors as the API."""

from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from chef.web.pagination import NewestFirst

M = TypeVar("M", bound=Model)


@dataclass(frozen=True)
class Shown(Generic[M]):
    """The rows of one page, and the query strings of the previous and next page; empty if there is none."""

    rows: list[M]
    previous: str
    next: str


def page_of(
    request: HttpRequest, rows: QuerySet[M], *, size: int = 25, order: type[NewestFirst] = NewestFirst
) -> Shown[M]:
    """The page that the request asks for. Raises Http404 for an invalid cursor."""
    pager = order()
    pager.page_size = size
    try:
        shown = pager.paginate_queryset(rows, Request(request)) or []
    except ValidationError as error:
        raise Http404("no such page") from error
    return Shown(shown, _query(pager.get_previous_link()), _query(pager.get_next_link()))


def _query(link: str | None) -> str:
    return f"?{urlsplit(link).query}" if link else ""
