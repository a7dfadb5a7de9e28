"""Replayed messages, and missed ones."""

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import Settings

from builds.models import Build, BuildEvent, Delivery, WebhookEndpoint
from builds.webhooks import outbox
from builds.webhooks.endpoints import EndpointDisabledError, change_endpoint
from chef.jobs.models import Status
from tests.builds.webhooks.sending import GOOD, advance, events_of, pass_time, seconds_until, send_due, take, tell_all

MakeEndpoint = Callable[..., WebhookEndpoint]
Move = Callable[..., Build]
DONE = (Status.RUNNING, Status.COMPLETED)


pytestmark = pytest.mark.usefixtures("usual_retries")

# --- Replays -----------------------------------------------------------------------------------------------------


def test_a_replay_sends_the_same_message_with_a_fresh_time_limit(make_endpoint: MakeEndpoint, move: Move) -> None:
    endpoint = make_endpoint()
    move()
    [first] = send_due(GOOD)
    pass_time(days=3)

    assert outbox.replay(endpoint, Delivery.objects.filter(pk=first.id)) == 1

    delivery = Delivery.objects.get()
    assert (delivery.status, delivery.finished_at) == ("pending", None)
    assert 23 < seconds_until(delivery.give_up_at) / 3600 <= 24
    [again] = send_due(GOOD)
    assert (again.id, again.body, again.number) == (first.id, first.body, 2)
    assert [row.number for row in delivery.log.all()] == [1, 2]


def test_a_replayed_range_is_sent_in_order(make_endpoint: MakeEndpoint, move: Move) -> None:
    endpoint = make_endpoint()
    move(*DONE)
    send_due(GOOD)

    outbox.replay(endpoint, Delivery.objects.all())

    assert events_of(send_due(GOOD)) == ["build.queued", "build.running", "build.completed"]


def test_deliveries_being_sent_are_not_replayed(make_endpoint: MakeEndpoint, move: Move) -> None:
    endpoint = make_endpoint()
    advance(move(), Status.RUNNING)
    take()

    assert outbox.replay(endpoint, Delivery.objects.all()) == 1  # the other, waiting one


# --- Missed messages ---------------------------------------------------------------------------------------------


def missed(endpoint: WebhookEndpoint, *, since: float = 1, until: float = 0) -> int:
    """Create missed deliveries for the period from `since` to `until` days ago."""
    now = timezone.now()
    return outbox.tell_missed(endpoint, now - timedelta(days=since), now - timedelta(days=until))


def test_events_while_disabled_can_be_sent_later(make_endpoint: MakeEndpoint, move: Move) -> None:
    endpoint = make_endpoint(events=["build.running", "build.completed"])
    change_endpoint(endpoint, active=False)
    build = move(*DONE)
    tell_all()
    assert not Delivery.objects.exists()
    with pytest.raises(EndpointDisabledError):
        missed(endpoint)

    endpoint = change_endpoint(endpoint, active=True)
    assert missed(endpoint, until=0.5) == 0
    assert missed(endpoint) == 2

    sent = [sent for _ in range(2) for sent in send_due(GOOD)]
    assert [json.loads(one.body)["type"] for one in sent] == ["build.running", "build.completed"]
    assert {json.loads(one.body)["data"]["jobId"] for one in sent} == {str(build.pk)}
    assert missed(endpoint) == 0


def test_sent_and_unsubscribed_events_do_not_count_as_missed(
    make_endpoint: MakeEndpoint, move: Move, other: User, settings: Settings
) -> None:
    endpoint, stranger_s = make_endpoint(), make_endpoint(by=other)
    early = move(*DONE)
    tell_all()
    assert missed(endpoint) == missed(stranger_s) == 0

    elsewhere = make_endpoint(project=move().project)
    Delivery.objects.filter(endpoint=elsewhere).delete()
    BuildEvent.objects.update(is_told=True)
    assert early.project_id != elsewhere.project_id
    WebhookEndpoint.objects.update(created_at=timezone.now() - timedelta(days=2))
    elsewhere.refresh_from_db()
    assert missed(elsewhere) == 1  # its own project's queued build
    Delivery.objects.all().delete()
    BuildEvent.objects.update(created_at=timezone.now() - timedelta(days=40))
    settings.WEBHOOK_KEEP_DAYS = 30
    assert missed(elsewhere, since=100) == 0  # its earlier subscriptions are unknown
