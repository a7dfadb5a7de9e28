"""What staff see of projects, generations and tokens. A token's value is never shown: only its hash is kept."""

import json
from typing import cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from projects.generations import GenerationUnderWay, NotEnded, cancel_generation, retry_generation
from projects.models import ApiToken, Exchange, Generation, GenerationEvent, Project, Revision


class ReadOnly:
    """Records are history: nobody edits them by hand."""

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


@admin.register(Project)
class ProjectAdmin(admin.ModelAdmin[Project]):
    list_display = ("name", "owner", "id", "created_at")
    list_select_related = ("owner",)
    search_fields = ("name", "=id", "owner__username")
    readonly_fields = ("id", "created_at", "updated_at")


@admin.register(Revision)
class RevisionAdmin(admin.ModelAdmin[Revision]):
    list_display = ("project", "number", "origin", "file_count", "total_bytes", "created_at")
    list_select_related = ("project",)
    readonly_fields = ("project", "number", "origin", "strategy", "dependencies", "file_count", "total_bytes")


@admin.register(ApiToken)
class ApiTokenAdmin(admin.ModelAdmin[ApiToken]):
    list_display = ("name", "prefix", "owner", "scope", "created", "expiry_date", "revoked")
    list_select_related = ("owner",)
    readonly_fields = ("prefix", "hashed_key", "created", "owner", "scope")
    exclude = ("hashed_key",)

    def has_add_permission(self, request: object) -> bool:
        return False  # `manage.py create_token` shows the value once


class ExchangeInline(ReadOnly, admin.TabularInline[Exchange, Generation]):
    """What was asked of the model, a line each; the whole of it is a page of its own."""

    model = Exchange
    extra = 0
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


class GenerationEventInline(ReadOnly, admin.TabularInline[GenerationEvent, Generation]):
    model = GenerationEvent
    extra = 0
    fields = ("created_at", "kind", "data")


@admin.register(Generation)
class GenerationAdmin(ReadOnly, admin.ModelAdmin[Generation]):
    list_display = ("id", "project", "kind", "status", "stage", "model", "tokens", "cost", "owner", "created_at")
    list_filter = ("status", "kind", "stage", "fix_ending", "provider")
    list_select_related = ("project", "owner")
    search_fields = ("=id", "project__name", "owner__username")
    date_hierarchy = "created_at"
    show_full_result_count = False
    inlines = (ExchangeInline, GenerationEventInline)
    actions = ("cancel", "retry")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Generation]:
        rows = super().get_queryset(request)
        page = (request.resolver_match and request.resolver_match.url_name) or ""
        return rows.defer("prompt", "state", "diff", "failed", "message") if page.endswith("_changelist") else rows

    @admin.display(description="tokens")
    def tokens(self, generation: Generation) -> int:
        return generation.input_tokens + generation.output_tokens

    @admin.action(description="Cancel what has not ended", permissions=["view"])
    def cancel(self, request: HttpRequest, rows: QuerySet[Generation]) -> None:
        cancelled = sum(cancel_generation(generation, by=cast(User, request.user)) for generation in rows)
        self.message_user(request, f"{cancelled} cancelled; the others had ended.")

    @admin.action(description="Retry what failed or was cancelled", permissions=["view"])
    def retry(self, request: HttpRequest, rows: QuerySet[Generation]) -> None:
        for generation in rows.select_related("project__owner"):
            try:
                again = retry_generation(generation, by=cast(User, request.user))
            except (NotEnded, GenerationUnderWay) as refusal:
                self.message_user(request, f"{generation.pk}: {refusal}", messages.WARNING)
            else:
                self.message_user(request, f"{generation.pk} goes on as {again.pk}.")


@admin.register(Exchange)
class ExchangeAdmin(ReadOnly, admin.ModelAdmin[Exchange]):
    """One request and its answer, readable. Reached from its generation."""

    fields = (
        *("generation", "stage", "subject", "attempt", "model", "created_at"),
        *("seconds", "tokens", "cost", "error", "detail", "asked", "answered"),
    )
    readonly_fields = ("tokens", "asked", "answered")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return False

    @admin.display(description="tokens")
    def tokens(self, exchange: Exchange) -> str:
        told = "estimated" if exchange.is_estimated else "as reported"
        return f"{exchange.input_tokens:,} in, {exchange.output_tokens:,} out, {told}"

    @admin.display(description="asked")
    def asked(self, exchange: Exchange) -> SafeString:
        text = "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in exchange.messages)
        return _preformatted(text)

    @admin.display(description="answered")
    def answered(self, exchange: Exchange) -> SafeString:
        try:
            return _preformatted(json.dumps(json.loads(exchange.answer), indent=2, ensure_ascii=False))
        except ValueError:
            return _preformatted(exchange.answer)


def _preformatted(text: str) -> SafeString:
    return format_html('<pre style="white-space: pre-wrap; overflow-wrap: anywhere">{}</pre>', text)
