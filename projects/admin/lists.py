"""Admin lists that are as fast with a million rows as with a thousand.

Only the newest MOST matching rows are counted and paged through; older ones are found by filters, dates and search.
Each list needs an index that begins with its ordering column, and ends with the column of a filter.
"""

import calendar
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from functools import cached_property
from typing import Any, TypeVar
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.models import User
from django.core.paginator import Page, Paginator
from django.db.models import Max, Min, Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString

from projects.models import Project

MOST = 1_000
PER_PAGE = 50
# How many matching owners and projects a search by name looks at.
MOST_OWNERS, MOST_PROJECTS = 3, 50

M = TypeVar("M", bound=Model)


class ReadOnly:
    """Records that nobody edits by hand."""

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


class RecordsInline(ReadOnly, admin.TabularInline[Any, Any]):
    """Related records as a table that scrolls sideways if it is too wide, by keyboard too."""

    template = "admin/records.html"
    extra = 0


class BoundedPaginator(Paginator[Any]):
    """Pages through the first MOST rows. Their ids are read once; only the rows of one page are read in full."""

    @cached_property
    def _pks(self) -> list[Any]:
        rows: Any = self.object_list
        return list(rows.values_list("pk", flat=True)[: MOST + 1])

    @cached_property
    def count(self) -> int:
        return min(len(self._pks), MOST)

    @property
    def is_cut(self) -> bool:
        return len(self._pks) > MOST

    def page(self, number: int | str) -> Page[Any]:
        number = self.validate_number(number)
        rows: Any = self.object_list
        start = (number - 1) * self.per_page
        shown = rows.filter(pk__in=self._pks[: self.count][start : start + self.per_page])
        return Page(shown, number, self)


class BoundedChangeList(ChangeList):
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not self.multi_page:
            self.result_list = self.paginator.page(1).object_list  # their ids are known: no second query for them

    @property
    def most(self) -> int:
        return MOST


class LargeList:
    """For a ModelAdmin of an unbounded table. `date_hierarchy` needs an index that begins with its column."""

    paginator: Any = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # facets cost a count for each choice of each filter
    list_per_page = list_max_show_all = PER_PAGE
    change_list_template: Any = "admin/large_list.html"

    # The id columns that a search by id looks at; `search_conditions` handles other terms.
    searched_ids: Sequence[str] = ("pk",)

    def search_conditions(self, term: str) -> list[Q] | None:
        """Conditions of which a row must match one; None: search in `search_fields`, as usual."""
        return None

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        try:
            pk = UUID(term)
        except ValueError:
            conditions = self.search_conditions(term) if term else None
            if conditions is None:
                found: tuple[QuerySet[Any], bool] = super().get_search_results(  # type: ignore[misc]
                    request, queryset, search_term
                )
                return found
            return matching_any(queryset, conditions), False
        return matching_any(queryset, [Q(**{name: pk}) for name in self.searched_ids]), False

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        title = str(self.model._meta.verbose_name_plural).capitalize()  # type: ignore[attr-defined]
        page: HttpResponse = super().changelist_view(request, {"title": title, **(extra_context or {})})  # type: ignore[misc]
        return page

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return BoundedChangeList


def matching_any(rows: "QuerySet[M]", conditions: Iterable[Q]) -> "QuerySet[M]":
    """The first MOST + 1 rows that match any of the conditions.

    One query per condition, so that each uses its own index: one query with OR would read the whole table. `rows`
    must be ordered, first by a column of the table.
    """
    order = str(rows.query.order_by[0])
    found: dict[Any, Any] = {}
    for condition in conditions:
        found.update(rows.filter(condition).values_list("pk", order.lstrip("-"))[: MOST + 1])
    ordered = sorted(found, key=lambda pk: (found[pk] is not None, found[pk]), reverse=order.startswith("-"))
    return rows.filter(pk__in=ordered[: MOST + 1])


def chip(status: str, label: str = "") -> SafeString:
    """A status as a coloured chip."""
    return format_html('<span class="chef-status {}">{}</span>', status, label or status)


def preformatted(text: str) -> SafeString:
    return format_html('<pre class="chef-text">{}</pre>', text)


def conditions_by_name(term: str) -> list[Q]:
    """Search conditions for a name, on rows with an owner and a project: one per owner, one for all projects."""
    owners = User.objects.filter(username__istartswith=term).order_by("username").values_list("pk", flat=True)
    projects = Project.objects.filter(name__icontains=term).order_by("-created_at").values_list("pk", flat=True)
    found = list(projects[:MOST_PROJECTS])
    return [*(Q(owner=owner) for owner in owners[:MOST_OWNERS]), *([Q(project__in=found)] if found else [])]


def choices_of(title: str, parameter: str, choices: Sequence[tuple[str, str]], *, by: str = "") -> Any:
    """A filter with fixed choices: Django's own queries the table for its distinct values."""

    def lookups(self: Any, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        return choices

    def queryset(self: Any, request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
        return rows.filter(**{by or parameter: self.value()}) if self.value() else rows

    members = {"title": title, "parameter_name": parameter, "lookups": lookups, "queryset": queryset}
    return type("Choices", (admin.SimpleListFilter,), members)


# --- Dates -------------------------------------------------------------------------------------------------------


def dates(cl: ChangeList) -> dict[str, Any]:
    """The context of admin/date_hierarchy.html: all years, months or days from the table's first row to its last.

    Django's own shows only those with rows, for which it has to read the whole table.
    """
    field = cl.date_hierarchy
    chosen = [_number(cl.params.get(f"{field}__{part}")) for part in ("year", "month", "day")]
    ends = cl.model._default_manager.aggregate(first=Min(field), last=Max(field))
    if not ends["first"]:
        return {"show": False}
    first, last = (ends[name].date() if isinstance(ends[name], datetime) else ends[name] for name in ("first", "last"))

    def link(*numbers: int) -> str:
        parts = zip(("year", "month", "day"), numbers, strict=False)
        return cl.get_query_string({f"{field}__{part}": number for part, number in parts}, [f"{field}__"])

    year, month, day = chosen
    if year and month and day:
        whole = {"link": link(year, month), "title": _month(date(year, month, 1))}
        return {"show": True, "back": whole, "choices": [{"title": date_format(date(year, month, day), "F j")}]}
    if year and month:
        days = [date(year, month, number) for number in range(1, calendar.monthrange(year, month)[1] + 1)]
        shown = [{"link": link(d.year, d.month, d.day), "title": date_format(d, "F j")} for d in days]
        inside = [choice for choice, d in zip(shown, days, strict=True) if first <= d <= last]
        return {"show": True, "back": {"link": link(year), "title": str(year)}, "choices": inside}
    if year or first.year == last.year:
        months = [date(year or last.year, number, 1) for number in range(1, 13)]
        inside = [
            {"link": link(m.year, m.month), "title": _month(m)} for m in months if first.replace(day=1) <= m <= last
        ]
        back = {"link": link(), "title": "All dates"} if year else None
        return {"show": True, "back": back, "choices": inside}
    years = range(first.year, last.year + 1)
    return {"show": True, "back": None, "choices": [{"link": link(y), "title": str(y)} for y in years]}


def _number(text: Any) -> int | None:
    return int(text) if str(text).isdecimal() else None


def _month(month: date) -> str:
    return date_format(month, "YEAR_MONTH_FORMAT")
