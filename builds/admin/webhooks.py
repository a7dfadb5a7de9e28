"""Webhooks in the admin: endpoints, deliveries and attempts. A secret is shown only once, when it is created."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from builds.models import TEST_EVENT, Delivery, DeliveryTry, EventName, WebhookEndpoint
from builds.templatetags.chef import ago
from builds.webhooks import endpoints, guard, outbox
from chef.refusals import RefusalError
from projects.admin.lists import MOST_OWNERS, LargeList, ReadOnly, RecordsInline, chip, choices_of, preformatted
from projects.admin.operations import Operates, Operation

OPERATE = "builds.operate_delivery"
Origin = WebhookEndpoint.Origin


def _switch_off(endpoint: WebhookEndpoint, by: User, reason: str) -> str:
    endpoints.change_endpoint(endpoint, active=False, reason=WebhookEndpoint.Reason.STAFF)
    return "Switched off: it is sent nothing more."


def _switch_on(endpoint: WebhookEndpoint, by: User, reason: str) -> str:
    endpoints.change_endpoint(endpoint, active=True)
    return "Switched on: it is told of what happens from now on."


def _send_test(endpoint: WebhookEndpoint, by: User, reason: str) -> str:
    return f"Sent a test message ({outbox.send_test(endpoint).pk})."


def _replay_failed(endpoint: WebhookEndpoint, by: User, reason: str) -> str:
    count = outbox.replay(endpoint, Delivery.objects.filter(status=Delivery.Status.FAILED))
    return f"{count} messages that had failed are sent once more."


def _replay(delivery: Delivery, by: User, reason: str) -> str:
    count = outbox.replay(delivery.endpoint, Delivery.objects.filter(pk=delivery.pk))
    if not count:
        raise RefusalError("A sender has it just now.")
    return "It is sent once more."


def _why_off(endpoint: WebhookEndpoint) -> str:
    return "" if endpoint.is_active else "It is switched off."


ENDPOINT_OPERATIONS: tuple[Operation[WebhookEndpoint], ...] = (
    Operation(
        name="switch_off",
        label="Switch off",
        icon="stop",
        permission=OPERATE,
        explain="Each is sent nothing more. What waits for it is given up.",
        why_not=_why_off,
        do=_switch_off,
        is_dangerous=True,
    ),
    Operation(
        name="switch_on",
        label="Switch on",
        icon="check",
        permission=OPERATE,
        explain="Each is told of what happens from now on.",
        why_not=lambda endpoint: "It is on." if endpoint.is_active else "",
        do=_switch_on,
    ),
    Operation(
        name="send_test",
        label="Send a test message",
        icon="spark",
        permission=OPERATE,
        explain="Each is sent a message that says nothing of a build.",
        why_not=_why_off,
        do=_send_test,
    ),
    Operation(
        name="replay_failed",
        label="Replay what has failed",
        icon="retry",
        permission=OPERATE,
        explain="Each is sent once more all that it was not reached with: the same ids, the same bytes.",
        why_not=_why_off,
        do=_replay_failed,
    ),
)

DELIVERY_OPERATIONS: tuple[Operation[Delivery], ...] = (
    Operation(
        name="replay",
        label="Send once more",
        icon="retry",
        permission=OPERATE,
        explain="Each is sent once more: the same id, the same bytes, all its time anew.",
        why_not=lambda delivery: "" if delivery.endpoint.is_active else "Its endpoint is switched off.",
        do=_replay,
    ),
    Operation(
        name="switch_endpoints_off",
        label="Switch its endpoint off",
        icon="stop",
        permission=OPERATE,
        explain="The endpoint of each is sent nothing more. What waits for it is given up.",
        why_not=lambda delivery: "" if delivery.endpoint.is_active else "Its endpoint is switched off.",
        do=lambda delivery, by, reason: _switch_off(delivery.endpoint, by, reason),
        is_dangerous=True,
    ),
)


class EndpointForm(forms.ModelForm[WebhookEndpoint]):
    """The URL and events of an endpoint of the installation."""

    refusal: guard.UrlRefusedError | None = None  # from resolving the host
    url = forms.CharField(max_length=guard.MAX_URL_CHARS, widget=forms.URLInput(attrs={"size": 80}))
    events = forms.MultipleChoiceField(choices=EventName.choices, widget=forms.CheckboxSelectMultiple)

    class Meta:
        model = WebhookEndpoint
        fields = ("url", "events")

    def clean_url(self) -> str:
        url = str(self.cleaned_data["url"])
        try:
            guard.parse(url)
            if self.refusal:
                raise self.refusal
        except guard.UrlRefusedError as refused:
            raise ValidationError(str(refused), code=refused.code) from refused
        return url


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(Operates[WebhookEndpoint], LargeList, admin.ModelAdmin[WebhookEndpoint]):
    """Staff create endpoints that get the events of all builds, and see and switch off those of users."""

    form = EndpointForm
    list_display = ("url", "whose", "origin", "is_on", "failing", "served")
    list_filter = ("origin", "disabled_reason", ("failing_since", admin.EmptyFieldListFilter))
    list_select_related = ("owner", "project")
    search_fields = ("url", "owner__username", "project__name")
    fields = (
        *("url", "events", "owner", "project", "origin", "is_on", "disabled_at", "failing_since", "served_at"),
        *("previous_valid_until", "created_at", "what_it_was_sent"),
    )
    readonly_fields = fields[2:]
    actions = ("rotate",)
    operations = ENDPOINT_OPERATIONS
    change_form_template = "admin/thing.html"

    def get_readonly_fields(self, request: HttpRequest, obj: WebhookEndpoint | None = None) -> Any:
        # Endpoints of users, and those from the settings, are not editable here.
        is_ours = obj is None or obj.origin == Origin.STAFF
        return self.readonly_fields if is_ours else self.fields

    def get_fields(self, request: HttpRequest, obj: WebhookEndpoint | None = None) -> Any:
        return self.fields if obj else ("url", "events")

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        # Before the view's transaction, which must not wait for DNS.
        refusal = guard.refusal_when_saved(request.POST["url"]) if request.POST.get("url") else None
        request.refusal = refusal  # type: ignore[attr-defined]
        return super().changeform_view(request, *args, **kwargs)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        return type(form.__name__, (form,), {"refusal": getattr(request, "refusal", None)})

    def save_model(self, request: HttpRequest, obj: WebhookEndpoint, form: Any, change: bool) -> None:
        url, events = form.cleaned_data.get("url"), form.cleaned_data.get("events")
        if change:
            endpoints.change_endpoint(obj, url=url, events=events)
            return
        made, secret = endpoints.create_for_installation(url=url, events=events)
        obj.pk = made.pk
        obj.refresh_from_db()
        self._show_secret(request, made, secret)

    def delete_model(self, request: HttpRequest, obj: WebhookEndpoint) -> None:
        endpoints.delete_endpoint(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[WebhookEndpoint]) -> None:
        for endpoint in queryset:
            endpoints.delete_endpoint(endpoint)

    # --- Columns -------------------------------------------------------------------------------------------------

    @admin.display(description="of")
    def whose(self, endpoint: WebhookEndpoint) -> SafeString | str:
        if endpoint.owner is None:
            return "everyone"
        quiet = format_html('<br><span class="chef-quiet">{}</span>', endpoint.project) if endpoint.project else ""
        return format_html("{}{}", endpoint.owner, quiet)

    @admin.display(description="failing since", ordering="failing_since")
    def failing(self, endpoint: WebhookEndpoint) -> SafeString | str:
        return ago(endpoint.failing_since)

    @admin.display(description="last sent", ordering="served_at")
    def served(self, endpoint: WebhookEndpoint) -> SafeString | str:
        return ago(endpoint.served_at)

    @admin.display(description="on", boolean=True, ordering="disabled_at")
    def is_on(self, endpoint: WebhookEndpoint) -> bool:
        return endpoint.is_active

    @admin.display(description="deliveries")
    def what_it_was_sent(self, endpoint: WebhookEndpoint) -> SafeString:
        return format_html('<a href="../../../delivery/?endpoint__id__exact={}">What it was sent</a>', endpoint.pk)

    # --- Actions -------------------------------------------------------------------------------------------------

    @admin.action(description="Rotate the secret (of the installation's own)", permissions=["change"])
    def rotate(self, request: HttpRequest, rows: QuerySet[WebhookEndpoint]) -> None:
        for endpoint in rows.filter(origin=Origin.STAFF):
            self._show_secret(request, *endpoints.rotate_secret(endpoint))
            self.log_change(request, endpoint, "Rotated the secret.")

    def _show_secret(self, request: HttpRequest, endpoint: WebhookEndpoint, secret: str) -> None:
        self.message_user(
            request, f"The secret of {endpoint.url} is {secret} and is not shown again.", level=messages.WARNING
        )


class TryInline(RecordsInline):
    model = DeliveryTry
    fields = ("number", "started_at", "duration_ms", "status_code", "error", "detail", "answer")


@admin.register(Delivery)
class DeliveryAdmin(Operates[Delivery], LargeList, ReadOnly, admin.ModelAdmin[Delivery]):
    operations = DELIVERY_OPERATIONS
    change_form_template = "admin/thing.html"
    list_display = ("name", "state", "tries", "endpoint", "build", "age", "ended")
    list_filter = ("status", choices_of("event", "name", [*EventName.choices, (TEST_EVENT, TEST_EVENT)]))
    list_select_related = ("endpoint",)
    search_fields = ("pk",)
    searched_ids = ("pk", "job_id", "endpoint")
    search_help_text = "The id of a delivery, a build or an endpoint; a part of an address; an owner's name."
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-pk")
    sortable_by = ("age",)
    fields = (
        *("endpoint", "name", "job_id", "status", "tries", "next_try_at", "give_up_at", "created_at", "finished_at"),
        "message",
    )
    readonly_fields = ("message",)
    inlines = (TryInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        rows = super().get_queryset(request)
        page = (request.resolver_match and request.resolver_match.url_name) or ""
        return rows.defer("body") if page.endswith("_changelist") else rows

    def operable(self, request: HttpRequest) -> QuerySet[Delivery]:
        return Delivery.objects.select_related("endpoint").defer("body")

    def search_conditions(self, term: str) -> list[Q]:
        """One condition per endpoint, so that each uses the index on the endpoint."""
        named = WebhookEndpoint.objects.filter(Q(url__icontains=term) | Q(owner__username=term))
        return [Q(endpoint=pk) for pk in named.order_by("-created_at").values_list("pk", flat=True)[:MOST_OWNERS]]

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        return lookup == "endpoint__id__exact" or super().lookup_allowed(lookup, value, request)

    @admin.display(description="state")
    def state(self, delivery: Delivery) -> SafeString:
        return chip(delivery.status)

    @admin.display(description="build")
    def build(self, delivery: Delivery) -> SafeString | str:
        if delivery.job_id is None:
            return "-"
        url = reverse("admin:builds_build_change", args=[delivery.job_id])
        return format_html('<a href="{}">{}</a>', url, str(delivery.job_id)[:8])

    @admin.display(description="made", ordering="created_at")
    def age(self, delivery: Delivery) -> SafeString | str:
        return ago(delivery.created_at)

    @admin.display(description="ended")
    def ended(self, delivery: Delivery) -> SafeString | str:
        return ago(delivery.finished_at)

    @admin.display(description="message")
    def message(self, delivery: Delivery) -> SafeString:
        return preformatted(bytes(delivery.body).decode())
