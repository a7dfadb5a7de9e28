"""API documents about webhooks: DRF serializers, so that the schema always matches."""

import json
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from builds.models import TEST_EVENT, Delivery, EventName, WebhookEndpoint
from projects.api.documents import ChoiceOrNull, Document, StoredDocument, TextOrNull


class WebhookLinks(Document):
    self = serializers.URLField()
    deliveries = serializers.URLField()

    def to_representation(self, endpoint: WebhookEndpoint) -> dict[str, str]:
        return {
            "self": self.address("webhook-detail", endpoint.pk),
            "deliveries": self.address("webhook-deliveries", endpoint.pk),
        }


class WebhookDocument(Document):
    """A URL that receives events about builds. Its secret is shown once, when it is new."""

    webhook_id = serializers.UUIDField(source="pk")
    url = serializers.CharField()
    events = serializers.ListField(child=serializers.ChoiceField(choices=EventName.choices))
    project = serializers.UUIDField(
        source="project_id", allow_null=True, help_text="The project whose events it receives; null: all projects."
    )
    active = serializers.BooleanField(source="is_active")
    disabled_reason = ChoiceOrNull(WebhookEndpoint.Reason.choices)
    disabled_at = serializers.DateTimeField(allow_null=True)
    failing_since = serializers.DateTimeField(allow_null=True, help_text="The first failure after the last success.")
    previous_secret_until = serializers.DateTimeField(
        source="previous_valid_until", allow_null=True, help_text="Until when the previous secret also signs."
    )
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    links = WebhookLinks(source="*")


class NewWebhookDocument(WebhookDocument):
    """The same with its secret, `context["webhook_secret"]`."""

    secret = serializers.SerializerMethodField(help_text="whsec_ and base64. Keep it: it is not shown again.")

    def get_secret(self, endpoint: WebhookEndpoint) -> str:
        return str(self.context["webhook_secret"])


class TryDocument(Document):
    """One try to send a message."""

    number = serializers.IntegerField(min_value=1)
    started_at = serializers.DateTimeField()
    duration_ms = serializers.IntegerField(allow_null=True)
    status_code = serializers.IntegerField(allow_null=True, help_text="Null if there was no answer.")
    error = TextOrNull(help_text="A code for why there was no answer.")
    detail = TextOrNull()
    answer = TextOrNull(help_text="The first kilobyte.")
    over = serializers.BooleanField(source="is_over")


class MessageDocument(StoredDocument):
    """The message as sent: a build's ids, number, status, attempt, times, verdict and links."""

    type = serializers.ChoiceField(choices=[*EventName.values, TEST_EVENT])
    timestamp = serializers.DateTimeField()
    data = serializers.DictField(child=serializers.JSONField())  # type: ignore[assignment]  # a field's name as well


class DeliveryDocument(Document):
    """A message with every try to send it. Its id is the message's `webhook-id`."""

    delivery_id = serializers.UUIDField(source="pk")
    event = serializers.ChoiceField(source="name", choices=[*EventName.values, TEST_EVENT])
    job_id = serializers.UUIDField(allow_null=True)
    status = serializers.ChoiceField(choices=Delivery.Status.choices)
    created_at = serializers.DateTimeField()
    next_try_at = serializers.SerializerMethodField()
    finished_at = serializers.DateTimeField(allow_null=True)
    message = serializers.SerializerMethodField()
    tries = TryDocument(source="log", many=True)

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_next_try_at(self, delivery: Delivery) -> Any:
        return delivery.next_try_at if delivery.status == Delivery.Status.PENDING else None

    @extend_schema_field(MessageDocument)
    def get_message(self, delivery: Delivery) -> Any:
        return json.loads(bytes(delivery.body))


class Replayed(Document):
    replayed = serializers.IntegerField(help_text="How many deliveries will be sent again.")
