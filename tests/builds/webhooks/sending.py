"""Shared by the tests of sending: status changes, a sender step by step, and passing time."""

import time
from datetime import timedelta
from typing import Any

from django.db.models import F
from django.utils import timezone

from builds.models import Build, Delivery, WebhookEndpoint
from builds.verdicts.evidence import verdict
from builds.webhooks.deliveries import Done, Outgoing, claim, settle
from builds.webhooks.outbox import tell_events
from builds.webhooks.sender import send
from builds.webhooks.transport import Answer
from chef.jobs.models import Status

GOOD, BAD = Answer(status=204), Answer(status=500, text="not today")


def advance(build: Build, *statuses: Status) -> Build:
    """Change the status with the model's own method."""
    for status in statuses:
        if status == Status.RUNNING:
            build.start("worker")
        elif status in (Status.FAILED, Status.CANCELLED):
            build.transition_to(status, verdict=verdict("build_failed", phase="build").as_json())
        else:
            build.transition_to(status)
    return build


def tell_all() -> None:
    while tell_events():
        pass


def names(deliveries: Any) -> list[str]:
    return [delivery.name for delivery in deliveries.order_by("created_at", "position")]


def send_due(answer: Answer | None = None) -> list[Outgoing]:
    """Do a sender's work until nothing is due: over HTTP, or with a given answer. Returns what was sent, in order."""
    tell_all()
    sent = []
    while taken := claim(100):
        for outgoing in taken:
            assert note(outgoing, answer or send(outgoing))
        sent += taken
    return sent


def note(outgoing: Outgoing, answer: Answer) -> bool:
    """Record this answer as received after 10 ms. False if the delivery's claim was lost."""
    now = time.monotonic()
    return settle(outgoing.endpoint_id, [Done(outgoing, answer, now - 0.01, now)]) == 1


def pass_time(**by: float) -> None:
    """Move all times of webhooks into the past by this much."""
    gone = timedelta(**by)
    Delivery.objects.update(
        next_try_at=F("next_try_at") - gone,
        give_up_at=F("give_up_at") - gone,
        created_at=F("created_at") - gone,
    )
    Delivery.objects.exclude(lease_expires_at=None).update(lease_expires_at=F("lease_expires_at") - gone)
    Delivery.objects.exclude(finished_at=None).update(finished_at=F("finished_at") - gone)
    failing = WebhookEndpoint.objects.exclude(failing_since=None)
    failing.update(failing_since=F("failing_since") - gone)
    rotated = WebhookEndpoint.objects.exclude(previous_valid_until=None)
    rotated.update(previous_valid_until=F("previous_valid_until") - gone)


def seconds_until(moment: Any) -> float:
    return float((moment - timezone.now()).total_seconds())


def take(room: int = 100, under_way: list[Outgoing] | None = None) -> list[Outgoing]:
    """What a sender would claim now."""
    tell_all()
    return claim(room, under_way or [])


def events_of(taken: list[Outgoing]) -> list[str]:
    """The events of these messages."""
    found = {row.pk: row.name for row in Delivery.objects.all()}
    return [found[outgoing.id] for outgoing in taken]
