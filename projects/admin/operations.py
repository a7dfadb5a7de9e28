"""Staff operations on one or many rows: with a confirmation page, a permission each, and an entry in the log.

An Operation describes one; `Operates` gives a ModelAdmin the confirmation page, the buttons and the list's actions.
Each operation on a row is written to Django's admin log, which the row's history and the list of log entries show.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from chef.refusals import RefusalError

M = TypeVar("M", bound=Model)

MOST_AT_ONCE = 100
MAX_REASON = 500
_MESSAGES_SHOWN = 20  # results shown one by one, before a summary


@dataclass(frozen=True)
class Operation(Generic[M]):
    """`explain` says what will happen to each row. `why_not` returns why a row does not allow it; empty if it does.

    `do` takes the row, the user and a reason, which may be empty, and returns what was done, for the log. It raises
    RefusalError. If not `is_atomic`, it stores or sends things that a transaction must not wait for.
    """

    name: str
    label: str
    permission: str
    explain: str
    why_not: Callable[[M], str]
    do: Callable[[M, User, str], str]
    asks_reason: bool = False
    is_dangerous: bool = False
    is_atomic: bool = True
    icon: str = "gear"

    def is_allowed(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm(self.permission))


class Operates(Generic[M]):
    """Mixin for a ModelAdmin with `operations`. `operable` reads the rows with all that these need, in few queries."""

    operations: Sequence[Operation[Any]] = ()
    operate_template = "admin/operate.html"

    def operable(self, request: HttpRequest) -> QuerySet[M]:
        return self._admin.get_queryset(request)

    def get_urls(self) -> list[URLPattern]:
        view = self._admin.admin_site.admin_view(self.operate_view)
        operate = path("operate/<slug:name>/", view, name=self._url_name())
        return [operate, *super().get_urls()]  # type: ignore[misc]

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        offered: dict[str, Any] = super().get_actions(request)  # type: ignore[misc]
        for operation in self.operations:
            if operation.is_allowed(request):
                offered[operation.name] = (_list_action(operation), operation.name, operation.label)
        return offered

    def buttons(self, request: HttpRequest, obj: M) -> list[dict[str, Any]]:
        """The operations that are possible on a row now, for its page."""
        able = [each for each in self.operations if each.is_allowed(request) and not each.why_not(obj)]
        return [{"operation": operation, "url": self.address_of(operation, [obj.pk])} for operation in able]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        try:
            obj = self.operable(request).filter(pk=object_id).first()
        except (ValidationError, ValueError):
            obj = None
        context = {**(extra_context or {}), "buttons": self.buttons(request, obj) if obj else []}
        page: HttpResponse = super().change_view(request, object_id, form_url, context)  # type: ignore[misc]
        return page

    def address_of(self, operation: Operation[Any], pks: Sequence[Any]) -> str:
        query = urlencode({"id": [str(pk) for pk in pks]}, doseq=True)
        return f"{reverse(f'admin:{self._url_name()}', args=[operation.name])}?{query}"

    def operate_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """GET shows which rows the operation will affect and how; POST does it."""
        operation = next((each for each in self.operations if each.name == name), None)
        if operation is None:
            raise Http404
        if not (operation.is_allowed(request) and self._admin.has_view_permission(request)):
            raise PermissionDenied
        rows = self._chosen(request)
        if not rows:
            self._admin.message_user(request, "Nothing was chosen.", messages.WARNING)
            return HttpResponseRedirect(self._list_url())
        is_one = len(rows) == 1
        if request.method != "POST":
            return self._confirmation(request, operation, rows)
        reason = request.POST.get("reason", "").strip()[:MAX_REASON]
        if operation.asks_reason and not reason:
            return self._confirmation(request, operation, rows, error="Say why: others will read it.")
        self._operate(request, operation, rows, reason)
        is_there = is_one and self.operable(request).filter(pk=rows[0].pk).exists()
        return HttpResponseRedirect(self._page_url(rows[0]) if is_there else self._list_url())

    # --- In steps ------------------------------------------------------------------------------------------------

    def _chosen(self, request: HttpRequest) -> list[M]:
        pks = (request.POST if request.method == "POST" else request.GET).getlist("id")[:MOST_AT_ONCE]
        try:
            return list(self.operable(request).filter(pk__in=pks))
        except (ValidationError, ValueError):
            return []

    def _confirmation(
        self, request: HttpRequest, operation: Operation[Any], rows: Sequence[M], error: str = ""
    ) -> HttpResponse:
        chosen = [{"object": row, "url": self._page_url(row), "why_not": operation.why_not(row)} for row in rows]
        context = {
            **self._admin.admin_site.each_context(request),
            "title": operation.label,
            "opts": self._admin.opts,
            "operation": operation,
            "rows": chosen,
            "able": sum(not row["why_not"] for row in chosen),
            "back": self._page_url(rows[0]) if len(rows) == 1 else self._list_url(),
            "error": error,
            "max_reason": MAX_REASON,
        }
        return TemplateResponse(request, self.operate_template, context, status=400 if error else 200)

    def _operate(self, request: HttpRequest, operation: Operation[Any], rows: Sequence[M], reason: str) -> None:
        done = 0
        for number, row in enumerate(rows):
            what, level = self._operate_on(request, operation, row, reason)
            done += level == messages.SUCCESS
            if number < _MESSAGES_SHOWN:
                self._admin.message_user(request, what, level)
        if len(rows) > _MESSAGES_SHOWN:
            self._admin.message_user(request, f"{operation.label}: done to {done} of {len(rows)}.")

    def _operate_on(self, request: HttpRequest, operation: Operation[Any], row: M, reason: str) -> tuple[str, int]:
        name, pk, by = str(row), row.pk, cast(User, request.user)
        if why_not := operation.why_not(row):
            return f"{name}: {why_not}", messages.WARNING
        # The change and its log entry are committed together, or not at all.
        together: AbstractContextManager[Any] = transaction.atomic() if operation.is_atomic else nullcontext()
        try:
            with together:
                what = operation.do(row, by, reason)
                message = f"{what} Reason: {reason}" if reason else what
                is_gone, row.pk = row.pk is None, pk
                LogEntry.objects.log_actions(
                    by.pk, [row], DELETION if is_gone else CHANGE, change_message=message, single_object=True
                )
        except RefusalError as refused:
            return f"{name}: {refused}", messages.WARNING
        return f"{name}: {what}", messages.SUCCESS

    # --- URLs ----------------------------------------------------------------------------------------------------

    @property
    def _admin(self) -> "admin.ModelAdmin[M]":
        return cast("admin.ModelAdmin[M]", self)

    def _url_name(self) -> str:
        return f"{self._admin.opts.app_label}_{self._admin.opts.model_name}_operate"

    def _list_url(self) -> str:
        return reverse(f"admin:{self._admin.opts.app_label}_{self._admin.opts.model_name}_changelist")

    def _page_url(self, row: M) -> str:
        return reverse(f"admin:{self._admin.opts.app_label}_{self._admin.opts.model_name}_change", args=[row.pk])


def _list_action(operation: Operation[Any]) -> Callable[..., HttpResponse | None]:
    """The list's action: redirects to the confirmation page."""

    def action(model_admin: Any, request: HttpRequest, rows: QuerySet[Any]) -> HttpResponse | None:
        pks = list(rows.order_by().values_list("pk", flat=True)[: MOST_AT_ONCE + 1])
        if len(pks) > MOST_AT_ONCE:
            model_admin.message_user(request, f"Choose {MOST_AT_ONCE} at most at a time.", messages.WARNING)
            return None
        return HttpResponseRedirect(model_admin.address_of(operation, pks))

    return action
