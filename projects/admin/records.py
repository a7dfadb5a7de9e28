"""Revisions, generations, tokens, users and the log in the admin. A token's value is not stored, only its hash."""

import json
from typing import Any

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from rest_framework_api_key.models import APIKey

from chef.jobs.models import Status
from chef.refusals import RefusalError
from projects.admin.lists import LargeList, ReadOnly, RecordsInline, chip, conditions_by_name, preformatted
from projects.admin.operations import Operates, Operation
from projects.generations.actions import cancel_generation, retry_generation
from projects.models import ApiToken, Exchange, Generation, GenerationEvent, Project, Revision
from projects.tokens import revoke_token


@admin.register(Revision)
class RevisionAdmin(LargeList, ReadOnly, admin.ModelAdmin[Revision]):
    list_display = ("project", "number", "origin", "file_count", "total_bytes", "created_at")
    list_select_related = ("project",)
    list_filter = ("origin",)
    search_fields = ("project__name",)
    searched_ids = ("project",)
    ordering = ("-pk",)

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        return lookup == "project__id__exact" or super().lookup_allowed(lookup, value, request)


def _revoke(token: ApiToken, by: User, reason: str) -> str:
    revoke_token(token)
    return "Revoked: nothing is let in with it any more."


@admin.register(ApiToken)
class ApiTokenAdmin(Operates[ApiToken], ReadOnly, admin.ModelAdmin[ApiToken]):
    """Without the value, of which only a hash is stored. `manage.py create_token` and the tokens page show it once."""

    change_form_template = "admin/thing.html"
    operations = (
        Operation(
            name="revoke",
            label="Revoke",
            icon="stop",
            permission="projects.change_apitoken",
            explain="Nothing is let in with any of these any more. That cannot be undone.",
            why_not=lambda token: "It is revoked." if token.revoked else "",
            do=_revoke,
            is_dangerous=True,
        ),
    )
    list_display = ("name", "prefix", "owner", "scope", "created", "until")
    list_select_related = ("owner",)
    list_filter = ("scope", "revoked")
    search_fields = ("name", "=prefix", "owner__username")
    fields = ("name", "prefix", "owner", "scope", "created", "expiry_date", "revoked")

    @admin.display(description="good until", ordering="expiry_date")
    def until(self, token: ApiToken) -> SafeString | str:
        if token.revoked or token.has_expired:
            return chip("failed", "revoked") if token.revoked else chip("warning", "expired")
        return f"{token.expiry_date:%Y-%m-%d}" if token.expiry_date else "always"


def _cancel(generation: Generation, by: User, reason: str) -> str:
    if not cancel_generation(generation, by=by):
        raise RefusalError(f"It has ended meanwhile: it is {generation.status}.")
    return "Cancelled."


def _retry(generation: Generation, by: User, reason: str) -> str:
    again = retry_generation(generation, by=by)
    return f"It goes on as {again.pk}."


def _why_not_retry(generation: Generation) -> str:
    if generation.kind == Generation.Kind.REPAIR:
        return "It is a repair: retry the build instead."
    is_over = generation.status in (Status.FAILED, Status.CANCELLED)
    return "" if is_over else f"It is {generation.status}: only what failed or was cancelled goes on."


OPERATE = "projects.operate_generation"
GENERATION_OPERATIONS = (
    Operation(
        name="cancel",
        label="Cancel",
        icon="stop",
        permission=OPERATE,
        explain="Each ends as cancelled, at once. What it has written so far is kept for a retry.",
        why_not=lambda generation: f"It has ended: it is {generation.status}." if generation.is_terminal else "",
        do=_cancel,
        is_dangerous=True,
    ),
    Operation(
        name="retry",
        label="Retry",
        icon="retry",
        permission=OPERATE,
        explain="Each goes on with what it has, as a new generation. This one stays as it is.",
        why_not=_why_not_retry,
        do=_retry,
    ),
)


class ExchangeInline(RecordsInline):
    """Requests to the model, one per line; each has its own page with the full text."""

    model = Exchange
    show_change_link = True
    fields = (
        "stage",
        "subject",
        "attempt",
        "input_tokens",
        "output_tokens",
        "is_estimated",
        "cost",
        "seconds",
        "error",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Exchange]:
        return super().get_queryset(request).defer("messages", "answer")


class GenerationEventInline(RecordsInline):
    model = GenerationEvent
    fields = ("created_at", "kind", "data")


@admin.register(Generation)
class GenerationAdmin(Operates[Generation], LargeList, ReadOnly, admin.ModelAdmin[Generation]):
    change_form_template = "admin/thing.html"
    operations = GENERATION_OPERATIONS
    list_display = ("what", "chip", "stage", "model", "tokens", "spent", "owner", "created_at")
    list_filter = ("status", "kind")
    list_select_related = ("project", "owner")
    search_fields = ("pk",)
    searched_ids = ("pk", "project")
    search_help_text = "The id of a generation or a project; an owner's name; a part of a project's name."
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-pk")
    sortable_by = ("created_at",)
    inlines = (ExchangeInline, GenerationEventInline)
    fieldsets = (
        (None, {"fields": ("project", "owner", "kind", "prompt", "base", "root", "retry_of", "id")}),
        (
            "How far it is",
            {"fields": ("status", "stage", "worker", "fence", "faults", "created_at", "started_at", "finished_at")},
        ),
        ("What came of it", {"fields": ("revision", "message", "error", "fix_ending", "best", "failed", "diff")}),
        ("What it took", {"fields": ("provider", "model", "input_tokens", "output_tokens", "max_tokens", "spent")}),
        (
            "How it was to be done",
            {
                "classes": ("collapse",),
                "fields": ("strategy", "analysis", "tests", "auto_fix", "available_at", "lease_expires_at", "state"),
            },
        ),
    )
    readonly_fields = ("spent",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Generation]:
        rows = super().get_queryset(request)
        page = (request.resolver_match and request.resolver_match.url_name) or ""
        return rows.defer("prompt", "state", "diff", "failed", "message") if page.endswith("_changelist") else rows

    @admin.display(description="generation")
    def what(self, generation: Generation) -> str:
        return str(generation)

    @admin.display(description="state")
    def chip(self, generation: Generation) -> SafeString:
        return chip(generation.status)

    @admin.display(description="tokens")
    def tokens(self, generation: Generation) -> int:
        return generation.input_tokens + generation.output_tokens

    @admin.display(description="cost")
    def spent(self, generation: Generation) -> str:
        return f"{generation.cost.normalize():f}" if generation.cost else "-"

    def operable(self, request: HttpRequest) -> QuerySet[Generation]:
        return Generation.objects.select_related("project__owner", "owner")

    def search_conditions(self, term: str) -> list[Q]:
        return conditions_by_name(term)

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        return lookup == "project__id__exact" or super().lookup_allowed(lookup, value, request)


@admin.register(Exchange)
class ExchangeAdmin(ReadOnly, admin.ModelAdmin[Exchange]):
    """One request to the model and its answer, in full. Linked from its generation."""

    fields = (
        *("generation", "stage", "subject", "attempt", "model", "created_at"),
        *("seconds", "tokens", "cost", "error", "detail", "asked", "answered"),
    )
    readonly_fields = ("tokens", "asked", "answered")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return False

    @admin.display(description="tokens")
    def tokens(self, exchange: Exchange) -> str:
        counted = "estimated" if exchange.is_estimated else "as reported"
        return f"{exchange.input_tokens:,} in, {exchange.output_tokens:,} out, {counted}"

    @admin.display(description="asked")
    def asked(self, exchange: Exchange) -> SafeString:
        text = "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in exchange.messages)
        return preformatted(text)

    @admin.display(description="answered")
    def answered(self, exchange: Exchange) -> SafeString:
        try:
            return preformatted(json.dumps(json.loads(exchange.answer), indent=2, ensure_ascii=False))
        except ValueError:
            return preformatted(exchange.answer)


# --- Users and the log -------------------------------------------------------------------------------------------

admin.site.site_header = admin.site.site_title = "Chef"
admin.site.index_title = "What there is"
admin.site.unregister([User, APIKey])  # these keys are not used: see ApiToken


@admin.register(User)
class PersonAdmin(UserAdmin[User]):
    """A user who owns projects cannot be deleted: projects are deleted first, with their stored files."""

    def get_deleted_objects(self, objs: Any, request: Any) -> Any:
        owners = Project.objects.filter(owner__in=[user.pk for user in objs]).values_list("owner__username", flat=True)
        if names := sorted(set(owners)):
            errors = [f"{name} owns projects: delete these first, or make the user inactive." for name in names]
            return [], {}, set(), errors
        return super().get_deleted_objects(objs, request)


@admin.register(LogEntry)
class LogEntryAdmin(LargeList, ReadOnly, admin.ModelAdmin[LogEntry]):
    """The log of actions in the admin."""

    list_display = ("action_time", "user", "what", "kind", "change")
    list_display_links = None
    list_select_related = ("user", "content_type")
    list_filter = ("action_flag",)
    search_fields = ("object_id",)
    searched_ids = ("object_id",)
    search_help_text = "A user's name, or the id of what was changed."
    ordering = ("-pk",)
    sortable_by = ()

    def search_conditions(self, term: str) -> list[Q]:
        users = User.objects.filter(username=term).values_list("pk", flat=True)
        return [*(Q(user=user) for user in users), Q(object_id=term)]

    @admin.display(description="of what")
    def what(self, entry: LogEntry) -> SafeString | str:
        url = None if entry.is_deletion() else entry.get_admin_url()
        return format_html('<a href="{}">{}</a>', url, entry.object_repr) if url else entry.object_repr

    @admin.display(description="kind")
    def kind(self, entry: LogEntry) -> str:
        return str(entry.content_type.name) if entry.content_type else "-"

    @admin.display(description="what was done")
    def change(self, entry: LogEntry) -> str:
        return entry.get_change_message() or entry.get_action_flag_display()
