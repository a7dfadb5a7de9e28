"""Claims, leases, order and retries: a sender's database work, without a network."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from builds.models import Build, Delivery, DeliveryTry, WebhookEndpoint
from builds.webhooks.deliveries import Done, Outgoing, claim, settle
from builds.webhooks.transport import Answer
from chef.jobs.models import Status
from tests.builds.webhooks.sending import BAD, GOOD, events_of, note, pass_time, send_due, take, tell_all

MakeEndpoint = Callable[..., WebhookEndpoint]
Move = Callable[..., Build]
DONE = (Status.RUNNING, Status.COMPLETED)


pytestmark = pytest.mark.usefixtures("usual_retries")

# --- Order -------------------------------------------------------------------------------------------------------


def test_events_of_one_build_are_sent_in_order(make_endpoint: MakeEndpoint, move: Move) -> None:
    make_endpoint(), move(*DONE)

    seen = []
    while taken := take():
        assert len(taken) == 1
        assert take() == []  # the others wait for its result
        seen += events_of(taken)
        note(taken[0], GOOD)

    assert seen == ["build.queued", "build.running", "build.completed"]


def test_a_failure_does_not_block_later_deliveries(make_endpoint: MakeEndpoint, move: Move) -> None:
    make_endpoint(), move(*DONE)
    [first] = take()
    note(first, BAD)

    assert events_of(send_due(GOOD)) == ["build.running", "build.completed"]
    assert Delivery.objects.get(pk=first.id).status == "pending"

    pass_time(seconds=10)
    assert events_of(send_due(GOOD)) == ["build.queued"]


def test_deliveries_of_a_dead_sender_go_before_later_ones(make_endpoint: MakeEndpoint, move: Move) -> None:
    make_endpoint(), move(*DONE)
    [held] = take()
    pass_time(minutes=10)

    [again] = take()

    assert (again.id, again.body, again.number, again.fence) == (held.id, held.body, 2, 2)
    assert events_of([again]) == ["build.queued"]
    assert [(row.number, row.is_over, row.error) for row in DeliveryTry.objects.all()] == [
        (1, True, "interrupted"),
        (2, False, ""),
    ]


def test_endpoints_take_turns_within_their_share(
    make_endpoint: MakeEndpoint, move: Move, other: User, settings: Settings
) -> None:
    settings.WEBHOOK_PER_ENDPOINT, settings.WEBHOOK_CONCURRENCY = 2, 8
    mine = [make_endpoint() for _ in range(4)]
    theirs = make_endpoint(by=other)
    for _ in range(5):
        move(), move(by=other)

    taken = take(8)

    counts = [sum(one.endpoint_id == endpoint.pk for one in taken) for endpoint in [*mine, theirs]]
    assert sorted(counts[:4]) == [0, 0, 2, 2]  # one owner's share is half of the sender
    assert counts[4] == 2
    for outgoing in taken:
        note(outgoing, GOOD)
    served = {outgoing.endpoint_id for outgoing in taken}
    assert {one.endpoint_id for one in take(4)}.isdisjoint(served - {theirs.pk})


def test_failing_endpoints_never_take_more_than_half(
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


def test_due_deliveries_are_found_behind_many_waiting_ones(make_endpoint: MakeEndpoint, move: Move) -> None:
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


def test_an_endpoint_that_must_wait_does_not_block_others(make_endpoint: MakeEndpoint, move: Move, other: User) -> None:
    slow, quick = make_endpoint(), make_endpoint(by=other)
    move(*DONE)
    [under_way] = take()
    WebhookEndpoint.objects.filter(pk=slow.pk).update(served_at=timezone.now() - timedelta(hours=1))
    move(by=other)

    [taken] = take(1, [under_way])

    assert taken.endpoint_id == quick.pk


# --- Leases ------------------------------------------------------------------------------------------------------


def test_a_sender_that_lost_a_delivery_records_nothing(make_endpoint: MakeEndpoint, move: Move) -> None:
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


def test_a_running_delivery_is_not_claimed_again(make_endpoint: MakeEndpoint, move: Move) -> None:
    make_endpoint(), move()

    assert len(take()) == 1
    assert take() == []


@pytest.mark.django_db(transaction=True)
def test_many_senders_claim_each_delivery_once_within_an_endpoint_s_limit(
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


def test_query_count_does_not_grow_with_deliveries(make_endpoint: MakeEndpoint, move: Move, settings: Settings) -> None:
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


def test_query_count_grows_little_with_answers(make_endpoint: MakeEndpoint, move: Move, settings: Settings) -> None:
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

    assert six - one == 5 * 2  # one delivery and one try each


def test_each_of_several_concurrent_answers_counts(make_endpoint: MakeEndpoint, move: Move) -> None:
    endpoint = make_endpoint()
    move(), move(), move()
    gone, bad, good = take()
    now = time.monotonic()
    answers = [(gone, Answer(status=410)), (bad, BAD), (good, GOOD)]

    assert settle(endpoint.pk, [Done(outgoing, answer, now, now) for outgoing, answer in answers]) == 3

    found = Delivery.objects.in_bulk([outgoing.id for outgoing in (gone, bad, good)])
    assert [found[outgoing.id].status for outgoing in (gone, bad, good)] == ["failed", "failed", "delivered"]
    assert set(DeliveryTry.objects.values_list("status_code", flat=True)) == {204, 410, 500}
