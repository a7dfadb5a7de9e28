"""The sender's loop in this process, with real receivers: it stops cleanly, and no receiver blocks others."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection
from pytest_django import Settings

from builds.models import Build, Delivery, WebhookEndpoint
from builds.webhooks import deliveries, sender
from chef.jobs.models import Status
from tests.installation import until
from tests.receiver import Receiver, Reply

MakeEndpoint = Callable[..., WebhookEndpoint]
Move = Callable[..., Build]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@contextlib.contextmanager
def running() -> Iterator[tuple[sender.Sender, threading.Thread]]:
    ours = sender.Sender()

    def run() -> None:
        try:
            ours.run()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield ours, thread
    finally:
        ours.stop()
        thread.join(30)
        assert not thread.is_alive()


def test_events_are_sent_and_recorded(receiver: Receiver, make_endpoint: MakeEndpoint, move: Move) -> None:
    make_endpoint(receiver.url)

    with running():
        move(Status.RUNNING, Status.COMPLETED)
        until(lambda: Delivery.objects.filter(status="delivered").count() == 3, seconds=20, what="all is delivered")

    assert len(receiver.messages) == len(set(receiver.ids)) == 3


def test_without_redis_the_sender_polls(
    receiver: Receiver, make_endpoint: MakeEndpoint, move: Move, settings: Settings
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    make_endpoint(receiver.url)

    with running():
        move(Status.RUNNING, Status.COMPLETED)
        until(lambda: len(receiver.messages) == 3, seconds=20, what="all is sent")


def test_stopping_finishes_current_deliveries_and_claims_no_more(
    receiver: Receiver, make_endpoint: MakeEndpoint, move: Move, settings: Settings
) -> None:
    settings.WEBHOOK_PER_ENDPOINT = 1
    asked, answered = threading.Event(), threading.Event()

    def slowly(_: object) -> Reply:
        asked.set()
        answered.wait(10)
        return Reply()

    receiver.reply = slowly
    make_endpoint(receiver.url)
    move(), move()

    with running() as (ours, thread):
        assert asked.wait(20)
        ours.stop()
        time.sleep(0.2)
        assert thread.is_alive()
        answered.set()
        thread.join(10)
        assert not thread.is_alive()

    assert sorted(Delivery.objects.values_list("status", "tries")) == [("delivered", 1), ("pending", 0)]


def test_hanging_receivers_do_not_block_others(
    receiver: Receiver, make_endpoint: MakeEndpoint, move: Move, other: User, settings: Settings
) -> None:
    settings.WEBHOOK_CONCURRENCY, settings.WEBHOOK_TIMEOUT = 4, 8
    with Receiver() as hanging:
        settings.WEBHOOK_ALLOWED_HOSTS = [*settings.WEBHOOK_ALLOWED_HOSTS, hanging.host]
        hanging.reply = lambda _: Reply(how="hang")
        for _ in range(3):
            make_endpoint(hanging.url)
        make_endpoint(receiver.url, by=other)
        for _ in range(5):
            move()
        with running():
            until(lambda: len(hanging.messages) == 2, seconds=20, what="the hanging ones have their share")
            began = time.monotonic()
            for _ in range(5):
                move(Status.RUNNING, Status.COMPLETED, by=other)
            until(lambda: len(receiver.messages) == 15, seconds=20, what="the others get theirs")
            took = time.monotonic() - began
            hanging.closing.set()

    assert took < 7  # less than the time limit of a hanging one


def test_a_failing_database_is_retried(
    receiver: Receiver, make_endpoint: MakeEndpoint, move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter([DatabaseError("gone for a moment"), RuntimeError("a mistake"), DatabaseError("and again")])

    def failing(endpoint_id: UUID, all_done: Sequence[deliveries.Done]) -> int:
        for error in errors:
            raise error
        return deliveries.settle(endpoint_id, all_done)

    monkeypatch.setattr(sender, "settle", failing)
    make_endpoint(receiver.url)
    move()

    with running():
        until(lambda: Delivery.objects.filter(status="delivered").exists(), seconds=20, what="it is noted")

    assert len(receiver.messages) == 1
