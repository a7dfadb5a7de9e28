"""Lists on pages, by the same cursors as the API's."""

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
    """The rows of one page, and the query strings of those before and after it; empty where there is none."""

    rows: list[M]
    previous: str
    next: str


def page_of(
    request: HttpRequest, rows: QuerySet[M], *, size: int = 25, order: type[NewestFirst] = NewestFirst
) -> Shown[M]:
    """The page that the address asks for. Raises Http404 for a cursor that no list has given."""
    pager = order()
    pager.page_size = size
    try:
        shown = pager.paginate_queryset(rows, Request(request)) or []
    except ValidationError as fault:
        raise Http404("no such page") from fault
    return Shown(shown, _query(pager.get_previous_link()), _query(pager.get_next_link()))


def _query(link: str | None) -> str:
    return f"?{urlsplit(link).query}" if link else ""
