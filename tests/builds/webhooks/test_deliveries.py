"""Claims, leases, order, retries: what a sender does with the database, without a network."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from builds.models import Build, Delivery, DeliveryTry, WebhookEndpoint
from builds.webhooks import outbox
from builds.webhooks.deliveries import Done, Outgoing, claim, settle, wait_after
from builds.webhooks.transport import Answer
from projects.jobs import Status
from tests.builds.webhooks.sending import BAD, GOOD, advance, note, pass_time, seconds_until, send_due, tell_all

MakeEndpoint = Callable[..., WebhookEndpoint]
Move = Callable[..., Build]
DONE = (Status.RUNNING, Status.COMPLETED)


@pytest.fixture(autouse=True)
def usual_retries(settings: Settings) -> None:
    settings.WEBHOOK_RETRY_SECONDS, settings.WEBHOOK_RETRY_MAX_SECONDS = 5, 3600


def take(room: int = 100, under_way: list[Outgoing] | None = None) -> list[Outgoing]:
    tell_all()
    return claim(room, under_way or [])


def names(taken: list[Outgoing]) -> list[str]:
    found = {row.pk: row.name for row in Delivery.objects.all()}
    return [found[outgoing.id] for outgoing in taken]


# --- Order -------------------------------------------------------------------------------------------------------


def test_events_of_one_build_are_sent_one_after_the_other(make_endpoint: MakeEndpoint, move: Move) -> None:
    make_endpoint(), move(*DONE)

    seen = []
    while taken := take():
        assert len(taken) == 1
        assert take() == []  # the others wait for what becomes of it
        seen += names(taken)
        note(taken[0], GOOD)

    assert seen == ["build.queued", "build.running", "build.completed"]


def test_a_failure_does_not_hold_up_what_comes_after_it(make_endpoint: MakeEndpoint, move: Move) -> None:
    make_endpoint(), move(*DONE)
    [first] = take()
    note(first, BAD)

    assert names(send_due(GOOD)) == ["build.running", "build.completed"]
    assert Delivery.objects.get(pk=first.id).status == "pending"

    pass_time(seconds=10)
    assert names(send_due(GOOD)) == ["build.queued"]


def test_what_a_dead_sender_held_goes_before_what_comes_after_it(make_endpoint: MakeEndpoint, move: Move) -> None:
    make_endpoint(), move(*DONE)
    [held] = take()
    pass_time(minutes=10)

    [again] = take()

    assert (again.id, again.body, again.number, again.fence) == (held.id, held.body, 2, 2)
    assert names([again]) == ["build.queued"]
    assert [(row.number, row.is_over, row.error) for row in DeliveryTry.objects.all()] == [
        (1, True, "interrupted"),
        (2, False, ""),
    ]


def test_endpoints_take_turns_and_none_gets_more_than_its_share(
    make_endpoint: MakeEndpoint, move: Move, other: User, settings: Settings
) -> None:
    settings.WEBHOOK_PER_ENDPOINT, settings.WEBHOOK_CONCURRENCY = 2, 8
    mine = [make_endpoint() for _ in range(4)]
    theirs = make_endpoint(by=other)
    for _ in range(5):
        move(), move(by=other)

    taken = take(8)

    counts = [sum(one.endpoint_id == endpoint.pk for one in taken) for endpoint in [*mine, theirs]]
    assert sorted(counts[:4]) == [0, 0, 2, 2]  # half of the sender for one owner
    assert counts[4] == 2
    for outgoing in taken:
        note(outgoing, GOOD)
    served = {outgoing.endpoint_id for outgoing in taken}
    assert {one.endpoint_id for one in take(4)}.isdisjoint(served - {theirs.pk})


def test_those_that_have_trouble_never_take_more_than_half(
    make_endpoint: MakeEndpoint, move: Move, other: User, settings: Settings
) -> None:
    settings.WEBHOOK_PER_ENDPOINT, settings.WEBHOOK_CONCURRENCY = 4, 4
    third = User.objects.create_user("third")
    for user in (other, third):
        make_endpoint(by=user)
        for _ in range(4):
            move(by=user)
    WebhookEndpoint.objects.update(failing_since=timezone.now())

    under_way = take(4)
    assert len(under_way) == 2
    assert take(2, under_way) == []

    make_endpoint(), move(), move()
    assert len(take(2, under_way)) == 2


def test_what_is_due_is_found_behind_much_that_has_to_wait(make_endpoint: MakeEndpoint, move: Move) -> None:
    endpoint = make_endpoint()
    busy = move()
    [under_way] = take()
    rows = [
        Delivery(endpoint=endpoint, name="build.running", job_id=busy.pk, position=10**9 + n, body=b"", give_up_at=soon)
        for n, soon in enumerate([timezone.now() + timedelta(hours=1)] * 450)
    ]
    Delivery.objects.bulk_create(rows)
    free = move()

    [taken] = take(5, [under_way])

    assert Delivery.objects.get(pk=taken.id).job_id == free.pk


def test_an_endpoint_whose_turn_it_is_but_that_has_to_wait_holds_up_no_other(
    make_endpoint: MakeEndpoint, move: Move, other: User
) -> None:
    slow, quick = make_endpoint(), make_endpoint(by=other)
    move(*DONE)
    [under_way] = take()
    WebhookEndpoint.objects.filter(pk=slow.pk).update(served_at=timezone.now() - timedelta(hours=1))
    move(by=other)

    [taken] = take(1, [under_way])

    assert taken.endpoint_id == quick.pk


# --- Leases ------------------------------------------------------------------------------------------------------


def test_whoever_has_lost_a_delivery_writes_nothing_about_it(make_endpoint: MakeEndpoint, move: Move) -> None:
    make_endpoint(), move()
    [lost] = take()
    pass_time(minutes=10)
    [mine] = take()

    assert not note(lost, GOOD)

    delivery = Delivery.objects.get()
    assert (delivery.status, delivery.tries) == ("pending", 2)
    assert note(mine, GOOD)
    delivery.refresh_from_db()
    assert (delivery.status, delivery.finished_at is not None) == ("delivered", True)


def test_a_delivery_under_way_is_not_taken_again(make_endpoint: MakeEndpoint, move: Move) -> None:
    make_endpoint(), move()

    assert len(take()) == 1
    assert take() == []


@pytest.mark.django_db(transaction=True)
def test_many_senders_take_each_delivery_once_and_keep_to_an_endpoint_s_limit(
    make_endpoint: MakeEndpoint, move: Move, settings: Settings
) -> None:
    settings.WEBHOOK_PER_ENDPOINT = 3
    for _ in range(2):
        make_endpoint()
    for _ in range(10):
        move()
    tell_all()
    start = threading.Barrier(5)

    def work(_: int) -> list[Outgoing]:
        start.wait()
        try:
            return claim(10)
        finally:
            connection.close()

    with ThreadPoolExecutor(5) as pool:
        taken = [outgoing for found in pool.map(work, range(5)) for outgoing in found]

    assert 0 < len(taken) <= 6
    assert len({outgoing.id for outgoing in taken}) == len(taken)


def test_more_deliveries_are_no_more_queries(make_endpoint: MakeEndpoint, move: Move, settings: Settings) -> None:
    settings.WEBHOOK_PER_ENDPOINT = 50
    make_endpoint(), move()
    tell_all()
    with CaptureQueriesContext(connection) as few:
        assert len(claim(50)) == 1
    for _ in range(6):
        move()
    tell_all()
    with CaptureQueriesContext(connection) as many:
        assert len(claim(50)) == 6

    assert len(many) == len(few)


def test_more_answers_are_few_more_queries(make_endpoint: MakeEndpoint, move: Move, settings: Settings) -> None:
    settings.WEBHOOK_PER_ENDPOINT = 50
    endpoint = make_endpoint()

    def queries_of(builds: int) -> int:
        for _ in range(builds):
            move()
        all_done = [Done(outgoing, GOOD, time.monotonic(), time.monotonic()) for outgoing in take(50)]
        with CaptureQueriesContext(connection) as queries:
            assert settle(endpoint.pk, all_done) == builds
        return len(queries)

    one, six = queries_of(1), queries_of(6)

    assert six - one == 5 * 2  # the delivery and the try of each, and nothing else


def test_of_several_answers_at_once_each_counts(make_endpoint: MakeEndpoint, move: Move) -> None:
    endpoint = make_endpoint()
    move(), move(), move()
    gone, bad, good = take()
    now = time.monotonic()
    answers = [(gone, Answer(status=410)), (bad, BAD), (good, GOOD)]

    assert settle(endpoint.pk, [Done(outgoing, answer, now, now) for outgoing, answer in answers]) == 3

    found = Delivery.objects.in_bulk([outgoing.id for outgoing in (gone, bad, good)])
    assert [found[outgoing.id].status for outgoing in (gone, bad, good)] == ["failed", "failed", "delivered"]
    assert set(DeliveryTry.objects.values_list("status_code", flat=True)) == {204, 410, 500}


# --- Retries -----------------------------------------------------------------------------------------------------


def test_waits_double_up_to_a_limit_and_differ(settings: Settings) -> None:
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
def test_a_receiver_that_asks_for_time_gets_it_within_bounds(retry_after: str, least: float, most: float) -> None:
    wait = wait_after(1, Answer(status=503, retry_after=retry_after), timezone.now()).total_seconds()

    assert least <= wait <= most


def test_a_receiver_may_name_a_date(make_endpoint: MakeEndpoint) -> None:
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
def test_all_but_2xx_is_tried_again(make_endpoint: MakeEndpoint, move: Move, answer: Answer) -> None:
    make_endpoint(), move()

    [sent] = send_due(answer)

    delivery = Delivery.objects.get()
    assert delivery.status == "pending"
    assert 3 < seconds_until(delivery.next_try_at) < 8
    tried = delivery.log.get()
    assert (tried.number, tried.status_code, tried.error, tried.is_over) == (1, answer.status, answer.error, True)
    assert (tried.duration_ms, sent.number) == (10, 1)


def test_a_delivery_is_tried_for_a_day_and_then_given_up(make_endpoint: MakeEndpoint, move: Move) -> None:
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
    assert WebhookEndpoint.objects.get().is_active  # a day is not days


# --- What becomes of the endpoint ----------------------------------------------------------------------------------


def test_410_switches_the_endpoint_off_at_once(
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
    # What was under way when it was switched off, and has arrived, has arrived.
    assert note(second, GOOD)
    assert Delivery.objects.get(pk=second.id).status == "delivered"


def test_an_endpoint_that_fails_for_days_is_switched_off_and_its_owner_told(
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


def test_one_success_and_the_days_count_anew(make_endpoint: MakeEndpoint, move: Move) -> None:
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


def test_an_owner_without_an_address_and_a_mail_server_that_fails_are_no_hindrance(
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


# --- Once more ---------------------------------------------------------------------------------------------------


def test_a_replay_sends_the_same_message_with_all_its_time(make_endpoint: MakeEndpoint, move: Move) -> None:
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


def test_a_range_that_is_replayed_is_sent_in_order_again(make_endpoint: MakeEndpoint, move: Move) -> None:
    endpoint = make_endpoint()
    move(*DONE)
    send_due(GOOD)

    outbox.replay(endpoint, Delivery.objects.all())

    assert names(send_due(GOOD)) == ["build.queued", "build.running", "build.completed"]


def test_what_a_sender_has_is_left_to_it(make_endpoint: MakeEndpoint, move: Move) -> None:
    endpoint = make_endpoint()
    advance(move(), Status.RUNNING)
    take()

    assert outbox.replay(endpoint, Delivery.objects.all()) == 1  # the other one, which waits
