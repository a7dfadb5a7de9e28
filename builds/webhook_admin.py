"""What staff see of webhooks: endpoints, what they were sent, and every try. A secret is shown when it is new, once."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from builds.models import Delivery, DeliveryTry, EventName, WebhookEndpoint
from builds.webhooks import endpoints, guard, outbox
from projects.admin import ReadOnly

Origin = WebhookEndpoint.Origin


class EndpointForm(forms.ModelForm[WebhookEndpoint]):
    """Of the installation's endpoints: where they are and what they are told."""

    refusal: guard.Refused | None = None  # what a look-up of the host has found
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
        except guard.Refused as refused:
            raise ValidationError(str(refused), code=refused.code) from refused
        return url


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(admin.ModelAdmin[WebhookEndpoint]):
    """Staff make endpoints that get the events of everyone's builds, and see and switch off those of users."""

    form = EndpointForm
    list_display = ("url", "owner", "project", "origin", "is_on", "failing_since", "served_at", "created_at")
    list_filter = ("origin", "disabled_reason", ("failing_since", admin.EmptyFieldListFilter))
    list_select_related = ("owner", "project")
    search_fields = ("=id", "url", "owner__username", "project__name")
    show_full_result_count = False
    fields = (
        *("url", "events", "owner", "project", "origin", "is_on", "disabled_at", "failing_since", "served_at"),
        *("previous_valid_until", "created_at", "what_it_was_sent"),
    )
    readonly_fields = fields[2:]
    actions = ("switch_off", "switch_on", "send_test", "replay_failed", "rotate")

    def get_readonly_fields(self, request: HttpRequest, obj: WebhookEndpoint | None = None) -> Any:
        is_ours = obj is None or obj.origin == Origin.STAFF
        return self.readonly_fields if is_ours else self.fields  # a user's, or the settings', are not ours to edit

    def get_fields(self, request: HttpRequest, obj: WebhookEndpoint | None = None) -> Any:
        return self.fields if obj else ("url", "events")

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        # Before the transaction of the view, which must not wait for a name server.
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
        self._tell(request, made, secret)

    def delete_model(self, request: HttpRequest, obj: WebhookEndpoint) -> None:
        endpoints.delete_endpoint(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[WebhookEndpoint]) -> None:
        for endpoint in queryset:
            endpoints.delete_endpoint(endpoint)

    # --- Columns -------------------------------------------------------------------------------------------------

    @admin.display(description="on", boolean=True, ordering="disabled_at")
    def is_on(self, endpoint: WebhookEndpoint) -> bool:
        return endpoint.is_active

    @admin.display(description="deliveries")
    def what_it_was_sent(self, endpoint: WebhookEndpoint) -> SafeString:
        return format_html('<a href="../../../delivery/?endpoint__id__exact={}">What it was sent</a>', endpoint.pk)

    # --- Actions -------------------------------------------------------------------------------------------------

    @admin.action(description="Switch off", permissions=["change"])
    def switch_off(self, request: HttpRequest, rows: QuerySet[WebhookEndpoint]) -> None:
        for endpoint in rows:
            endpoints.change_endpoint(endpoint, active=False, reason=WebhookEndpoint.Reason.STAFF)
        self.message_user(request, "They are sent nothing more.")

    @admin.action(description="Switch on", permissions=["change"])
    def switch_on(self, request: HttpRequest, rows: QuerySet[WebhookEndpoint]) -> None:
        for endpoint in rows:
            endpoints.change_endpoint(endpoint, active=True)
        self.message_user(request, "They are told of what happens from now on.")

    @admin.action(description="Send a test message", permissions=["change"])
    def send_test(self, request: HttpRequest, rows: QuerySet[WebhookEndpoint]) -> None:
        for endpoint in rows.filter(disabled_at=None):
            outbox.send_test(endpoint)
        self.message_user(request, "Those that are on get a test message.")

    @admin.action(description="Replay what has failed", permissions=["change"])
    def replay_failed(self, request: HttpRequest, rows: QuerySet[WebhookEndpoint]) -> None:
        failed = Delivery.objects.filter(status=Delivery.Status.FAILED)
        count = sum(outbox.replay(endpoint, failed) for endpoint in rows.filter(disabled_at=None))
        self.message_user(request, f"{count} messages are sent once more.")

    @admin.action(description="Rotate the secret (of the installation's own)", permissions=["change"])
    def rotate(self, request: HttpRequest, rows: QuerySet[WebhookEndpoint]) -> None:
        for endpoint in rows.filter(origin=Origin.STAFF):
            self._tell(request, *endpoints.rotate_secret(endpoint))

    def _tell(self, request: HttpRequest, endpoint: WebhookEndpoint, secret: str) -> None:
        self.message_user(
            request, f"The secret of {endpoint.url} is {secret} and is not shown again.", level=messages.WARNING
        )


class TryInline(ReadOnly, admin.TabularInline[DeliveryTry, Delivery]):
    model = DeliveryTry
    extra = 0
    fields = ("number", "started_at", "duration_ms", "status_code", "error", "detail", "answer")


@admin.register(Delivery)
class DeliveryAdmin(ReadOnly, admin.ModelAdmin[Delivery]):
    list_display = ("id", "name", "job_id", "endpoint", "status", "tries", "next_try_at", "created_at", "finished_at")
    list_filter = ("status", "name", "endpoint__origin", "endpoint__disabled_reason")
    list_select_related = ("endpoint",)
    search_fields = ("=id", "=job_id", "=endpoint__id", "endpoint__url", "endpoint__owner__username")
    date_hierarchy = "created_at"
    show_full_result_count = False
    fields = (
        *("endpoint", "name", "job_id", "status", "tries", "next_try_at", "give_up_at", "created_at", "finished_at"),
        "message",
    )
    readonly_fields = ("message",)
    inlines = (TryInline,)
    actions = ("replay", "switch_endpoints_off")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        rows = super().get_queryset(request)
        page = (request.resolver_match and request.resolver_match.url_name) or ""
        return rows.defer("body") if page.endswith("_changelist") else rows

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        return lookup == "endpoint__id__exact" or super().lookup_allowed(lookup, value, request)

    def has_send_permission(self, request: HttpRequest) -> bool:
        """Who may change endpoints may also send to them, though nobody edits what was sent."""
        return bool(request.user.has_perm("builds.change_webhookendpoint"))

    @admin.display(description="message")
    def message(self, delivery: Delivery) -> SafeString:
        text = bytes(delivery.body).decode()
        return format_html('<pre style="white-space: pre-wrap; overflow-wrap: anywhere">{}</pre>', text)

    @admin.action(description="Send once more", permissions=["send"])
    def replay(self, request: HttpRequest, rows: QuerySet[Delivery]) -> None:
        count = 0
        for endpoint in WebhookEndpoint.objects.active().filter(pk__in=rows.order_by().values("endpoint")):
            count += outbox.replay(endpoint, Delivery.objects.filter(pk__in=[row.pk for row in rows]))
        self.message_user(request, f"{count} are sent once more; the others' endpoints are off, or have them just now.")

    @admin.action(description="Switch their endpoints off", permissions=["send"])
    def switch_endpoints_off(self, request: HttpRequest, rows: QuerySet[Delivery]) -> None:
        for endpoint in WebhookEndpoint.objects.active().filter(pk__in=rows.order_by().values("endpoint")):
            endpoints.change_endpoint(endpoint, active=False, reason=WebhookEndpoint.Reason.STAFF)
        self.message_user(request, "Their endpoints are sent nothing more.")
