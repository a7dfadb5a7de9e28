"""Which answers are retried and when, and how a failing endpoint is disabled."""

from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import Settings

from builds.models import Build, Delivery, WebhookEndpoint
from builds.webhooks.deliveries import wait_after
from builds.webhooks.transport import Answer
from chef.jobs.models import Status
from tests.builds.webhooks.sending import BAD, GOOD, note, pass_time, seconds_until, send_due, take, tell_all

MakeEndpoint = Callable[..., WebhookEndpoint]
Move = Callable[..., Build]
DONE = (Status.RUNNING, Status.COMPLETED)


pytestmark = pytest.mark.usefixtures("usual_retries")

# --- Retries -----------------------------------------------------------------------------------------------------


def test_back_off_doubles_up_to_a_limit_with_jitter(settings: Settings) -> None:
    now = timezone.now()

    def waits(tries: int) -> list[float]:
        return [wait_after(tries, BAD, now).total_seconds() for _ in range(200)]

    for tries, usual in ((1, 5), (2, 10), (3, 20), (10, 2560), (11, 3600), (1000, 3600)):
        found = waits(tries)
        assert usual * 0.75 <= min(found) < max(found) <= usual * 1.25
        assert len(set(found)) > 100


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [
        *(("120", 120, 120), ("999999999999", 3600, 3600), ("0", 3, 7), ("-5", 3, 7), ("soon", 3, 7), ("", 3, 7)),
        ("٣", 3, 7),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 3, 7),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600, 3600),
    ],
)
def test_retry_after_is_honoured_within_bounds(retry_after: str, least: float, most: float) -> None:
    wait = wait_after(1, Answer(status=503, retry_after=retry_after), timezone.now()).total_seconds()

    assert least <= wait <= most


def test_retry_after_may_be_a_date(make_endpoint: MakeEndpoint) -> None:
    now = timezone.now()
    asked = format_datetime(now + timedelta(minutes=5), usegmt=True)

    assert 290 < wait_after(1, Answer(status=429, retry_after=asked), now).total_seconds() <= 300


@pytest.mark.parametrize(
    "answer",
    [
        *(Answer(status=status) for status in (301, 302, 307, 400, 401, 404, 422, 429, 500, 502, 503)),
        *(Answer(error=error) for error in ("timeout", "connection_failed", "connection_lost", "inward_url")),
    ],
)
def test_everything_but_2xx_is_retried(make_endpoint: MakeEndpoint, move: Move, answer: Answer) -> None:
    make_endpoint(), move()

    [sent] = send_due(answer)

    delivery = Delivery.objects.get()
    assert delivery.status == "pending"
    assert 3 < seconds_until(delivery.next_try_at) < 8
    tried = delivery.log.get()
    assert (tried.number, tried.status_code, tried.error, tried.is_over) == (1, answer.status, answer.error, True)
    assert (tried.duration_ms, sent.number) == (10, 1)


def test_a_delivery_is_retried_for_a_day_and_then_given_up(make_endpoint: MakeEndpoint, move: Move) -> None:
    make_endpoint(), move()
    tell_all()
    bodies, ids, hours = set(), set(), 0.0

    while Delivery.objects.get().status == "pending":
        for sent in send_due(BAD):
            bodies.add(sent.body)
            ids.add(sent.id)
        if Delivery.objects.get().status == "pending":
            wait = seconds_until(Delivery.objects.get().next_try_at) + 0.01
            hours += wait / 3600
            pass_time(seconds=wait)

    delivery = Delivery.objects.get()
    assert (delivery.status, delivery.finished_at is not None) == ("failed", True)
    assert 23.9 < hours < 24.1
    assert 25 < delivery.tries < 60
    assert [row.number for row in delivery.log.all()] == list(range(1, delivery.tries + 1))
    assert {row.answer for row in delivery.log.all()} == {"not today"}
    assert (len(bodies), ids) == (1, {delivery.pk})
    assert WebhookEndpoint.objects.get().is_active  # a single day is not enough


# --- The endpoint's state ------------------------------------------------------------------------------------------


def test_410_disables_the_endpoint_at_once(
    make_endpoint: MakeEndpoint, move: Move, owner: User, mailoutbox: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    User.objects.filter(pk=owner.pk).update(email="owner@example.com")
    endpoint = make_endpoint()
    move(), move()

    with django_capture_on_commit_callbacks(execute=True):
        [first, second] = take()
        note(first, Answer(status=410))

    endpoint.refresh_from_db()
    assert (endpoint.is_active, endpoint.disabled_reason) == (False, "gone")
    assert set(Delivery.objects.values_list("status", flat=True)) == {"failed"}
    assert take() == []
    [mail] = mailoutbox
    assert mail.to == ["owner@example.com"]
    assert endpoint.url in mail.body
    assert "410" in mail.body
    # A delivery in progress while it was disabled still counts if it arrived.
    assert note(second, GOOD)
    assert Delivery.objects.get(pk=second.id).status == "delivered"


def test_an_endpoint_that_fails_for_days_is_disabled_and_its_owner_notified(
    make_endpoint: MakeEndpoint, move: Move, owner: User, mailoutbox: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    User.objects.filter(pk=owner.pk).update(email="owner@example.com")
    endpoint = make_endpoint()
    for day in range(5):
        move()
        send_due(BAD)
        endpoint.refresh_from_db()
        assert endpoint.is_active, day
        pass_time(days=1, seconds=1)

    with django_capture_on_commit_callbacks(execute=True):
        move()
        send_due(BAD)

    endpoint.refresh_from_db()
    assert endpoint.disabled_reason == "failing"
    assert not Delivery.objects.filter(status="pending").exists()
    assert ["days" in mail.body for mail in mailoutbox] == [True]


def test_one_success_resets_the_days_of_failure(make_endpoint: MakeEndpoint, move: Move) -> None:
    endpoint = make_endpoint()
    move()
    send_due(BAD)
    pass_time(days=4)
    move()
    send_due(GOOD)
    endpoint.refresh_from_db()
    assert endpoint.failing_since is None

    pass_time(days=4)
    move()
    send_due(BAD)

    endpoint.refresh_from_db()
    assert endpoint.is_active


def test_a_missing_address_or_failing_mail_server_does_not_matter(
    make_endpoint: MakeEndpoint, move: Move, owner: User, settings: Settings, django_capture_on_commit_callbacks: Any
) -> None:
    settings.EMAIL_BACKEND, settings.EMAIL_HOST, settings.EMAIL_PORT = (
        "django.core.mail.backends.smtp.EmailBackend",
        "127.0.0.1",
        1,
    )
    for address in ("", "owner@example.com"):
        User.objects.filter(pk=owner.pk).update(email=address)
        endpoint = make_endpoint()
        move()
        with django_capture_on_commit_callbacks(execute=True):
            send_due(Answer(status=410))
        endpoint.refresh_from_db()
        assert endpoint.disabled_reason == "gone"
