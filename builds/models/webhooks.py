"""Webhooks: endpoints, each message to each of them, and every try to send it."""

import uuid
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import Min, Q
from django.utils import timezone

from builds.models.builds import BuildEvent
from chef.jobs.models import TERMINAL, Status
from projects.models import Project


class EventName(models.TextChoices):
    """The events that an endpoint can subscribe to."""

    QUEUED = "build.queued"
    RUNNING = "build.running"
    COMPLETED = "build.completed"
    FAILED = "build.failed"
    CANCELLED = "build.cancelled"


EVENT_NAMES: Mapping[str, EventName] = {status: EventName(f"build.{status}") for status in Status}
RESULT_EVENTS = tuple(EVENT_NAMES[status] for status in Status if status in TERMINAL)
TEST_EVENT = "webhook.test"  # sent on request only; it cannot be subscribed to


class EndpointQuerySet(models.QuerySet["WebhookEndpoint"]):
    def active(self) -> Self:
        return self.filter(disabled_at=None)

    def locked(self, pk: uuid.UUID, *, skip: bool = False) -> "WebhookEndpoint | None":
        """The endpoint, locked for this transaction; None when it is gone, or, with `skip`, locked elsewhere.

        Take this lock before changing shared deliveries. Creating deliveries does not need it.
        """
        return self.select_for_update(no_key=True, skip_locked=skip).filter(pk=pk).first()


class WebhookEndpoint(models.Model):
    """A URL that receives events: of one project, of all of an owner's, or, without an owner, of everyone's."""

    class Origin(models.TextChoices):
        API = "api"
        PROJECT = "project"  # the `webhookUrl` of a project
        STAFF = "staff"  # made in the admin
        SETTING = "setting"  # CONVEX_URL

    class Reason(models.TextChoices):
        """Why an endpoint is disabled."""

        OWNER = "owner", "its owner has switched it off"
        STAFF = "staff", "staff have switched it off"
        GONE = "gone", "it answered 410 Gone"
        FAILING = "failing", "it has failed for days"
        SETTING = "setting", "the setting that makes it is unset"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # Where `db_index` is off, another index begins with the column.
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="webhooks",
        db_index=False,
    )
    project = models.ForeignKey(Project, on_delete=models.CASCADE, null=True, blank=True, related_name="webhooks")
    origin = models.CharField(max_length=8, choices=Origin, default=Origin.API)
    url = models.CharField(max_length=2000)
    events = models.JSONField()  # a list of EventName
    sealed_secret = models.TextField()  # see chef.storage.sealing
    # The previous secret, which also signs until then.
    previous_sealed_secret = models.TextField(blank=True)
    previous_valid_until = models.DateTimeField(null=True, blank=True)
    disabled_at = models.DateTimeField(null=True, blank=True)
    disabled_reason = models.CharField(max_length=8, choices=Reason, blank=True)
    failing_since = models.DateTimeField(null=True, blank=True)  # the first failure after the last success
    served_at = models.DateTimeField(null=True, blank=True)  # when something was last sent: endpoints take turns
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(auto_now=True)

    objects = EndpointQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=Q(disabled_at__isnull=True, disabled_reason="")
                | (Q(disabled_at__isnull=False) & ~Q(disabled_reason="")),
                name="webhook_disabled_iff_reason",
            ),
            models.CheckConstraint(
                condition=Q(previous_valid_until__isnull=True, previous_sealed_secret="")
                | (Q(previous_valid_until__isnull=False) & ~Q(previous_sealed_secret="")),
                name="webhook_previous_secret_iff_valid",
            ),
            models.CheckConstraint(
                condition=Q(origin="api", owner__isnull=False)
                | Q(origin="project", owner__isnull=False, project__isnull=False)
                | Q(origin__in=["staff", "setting"], owner__isnull=True, project__isnull=True),
                name="webhook_owned_iff_not_installation_s",
            ),
            models.UniqueConstraint(fields=["origin"], condition=Q(origin="setting"), name="webhook_of_setting_once"),
            models.UniqueConstraint(fields=["project"], condition=Q(origin="project"), name="webhook_of_project_once"),
        ]
        indexes = [
            # builds.api.webhooks: an owner's endpoints, newest first; and builds.webhooks.outbox: subscribers
            models.Index(fields=["owner", "-created_at", "-id"], name="webhook_by_owner"),
        ]

    def __str__(self) -> str:
        return self.url

    @property
    def is_active(self) -> bool:
        return self.disabled_at is None

    def wants(self, event: BuildEvent) -> bool:
        """Whether it is subscribed to a change of status. Events older than the endpoint are not sent."""
        build = event.build
        return (
            self.owner_id in (None, build.owner_id)
            and self.project_id in (None, build.project_id)
            and EVENT_NAMES[event.to_status] in self.events
            and self.created_at <= event.created_at
        )


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    def due(self, now: datetime) -> Self:
        """Due now: waiting, or claimed by a sender whose lease has expired."""
        return self.filter(status=Delivery.Status.PENDING, next_try_at__lte=now).filter(
            Q(lease_expires_at=None) | Q(lease_expires_at__lt=now)
        )

    def first_to_wait_for(self, endpoint: WebhookEndpoint, jobs: Collection[uuid.UUID]) -> dict[uuid.UUID, int]:
        """For each of these builds, the first untried or running position, which later ones wait for."""
        waited_for = self.filter(endpoint=endpoint, job_id__in=jobs, status=Delivery.Status.PENDING).filter(
            Q(is_untried=True) | Q(lease_expires_at__isnull=False)
        )
        return dict(waited_for.order_by().values_list("job_id").annotate(Min("position")))


class Delivery(models.Model):
    """One message to one endpoint. Its id is the `webhook-id` of every try."""

    class Status(models.TextChoices):
        PENDING = "pending"
        DELIVERED = "delivered"
        FAILED = "failed"  # given up: it expired, or its endpoint was disabled

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # Where `db_index` is off, another index begins with the column.
    endpoint = models.ForeignKey(WebhookEndpoint, on_delete=models.CASCADE, related_name="deliveries", db_index=False)
    name = models.CharField(max_length=20)  # an EventName, or TEST_EVENT
    # No foreign keys: messages are sent even if the build is deleted, and deleting does not wait for a sender.
    job_id = models.UUIDField(null=True, blank=True)
    position = models.BigIntegerField(default=0)  # the event's number, which orders a build's events; 0: a test
    body = models.BinaryField()  # the exact bytes that are signed and sent
    status = models.CharField(max_length=9, choices=Status, default=Status.PENDING)
    is_untried = models.BooleanField(default=True)  # since it was created, or replayed
    tries = models.PositiveIntegerField(default=0)
    fence = models.PositiveIntegerField(default=0)
    next_try_at = models.DateTimeField(default=timezone.now)
    give_up_at = models.DateTimeField()
    lease_expires_at = models.DateTimeField(null=True, blank=True)  # set while a sender holds it
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        verbose_name_plural = "deliveries"
        permissions = [("operate_delivery", "Can send deliveries again, and switch their endpoints off")]
        constraints = [
            models.UniqueConstraint(
                fields=["endpoint", "position"], condition=Q(position__gt=0), name="delivery_once_per_event"
            ),
            models.CheckConstraint(
                condition=Q(status="pending", finished_at__isnull=True)
                | (~Q(status="pending") & Q(finished_at__isnull=False, lease_expires_at__isnull=True)),
                name="delivery_pending_iff_unfinished",
            ),
        ]
        indexes = [
            # builds.webhooks.deliveries.claim: due deliveries, and those that come before them
            models.Index(fields=["endpoint", "next_try_at"], name="delivery_due", condition=Q(status="pending")),
            models.Index(
                fields=["endpoint", "job_id", "position"], name="delivery_in_turn", condition=Q(status="pending")
            ),
            # builds.api.webhooks: an endpoint's deliveries, newest first
            models.Index(fields=["endpoint", "-created_at", "-id"], name="delivery_by_endpoint"),
            # builds.admin: everyone's deliveries, newest first; and those of one build
            models.Index(fields=["-created_at", "-id", "status", "name"], name="delivery_newest"),
            models.Index(fields=["job_id"], name="delivery_by_build", condition=Q(job_id__isnull=False)),
            # builds.webhooks.outbox.forget_old
            models.Index(fields=["finished_at"], name="delivery_by_age", condition=Q(finished_at__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.job_id or ''}".strip()


class DeliveryTry(models.Model):
    """One try to send a message, recorded before it is sent."""

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="log", db_index=False)
    number = models.PositiveIntegerField()
    started_at = models.DateTimeField(default=timezone.now)
    duration_ms = models.PositiveIntegerField(null=True, blank=True)
    status_code = models.PositiveSmallIntegerField(null=True, blank=True)  # None: there was no answer
    error = models.CharField(max_length=40, blank=True)  # why there was none: see builds.webhooks.transport
    detail = models.CharField(max_length=300, blank=True)
    answer = models.TextField(blank=True)  # its first kilobyte
    is_over = models.BooleanField(default=False)

    class Meta:
        ordering = ["number"]
        verbose_name_plural = "delivery tries"
        constraints = [models.UniqueConstraint(fields=["delivery", "number"], name="delivery_try_once")]

    def __str__(self) -> str:
        return f"try {self.number}"
