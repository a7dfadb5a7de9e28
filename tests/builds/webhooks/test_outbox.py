"""From events to deliveries: each once, to its subscribers, in any order of commits."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from builds import actions
from builds.models import EVENT_NAMES, RESULT_EVENTS, Build, BuildEvent, Delivery, EventName, WebhookEndpoint
from builds.webhooks import endpoints, outbox
from builds.webhooks.outbox import tell_events
from chef.jobs.models import Status
from projects.files.paths import NewFile
from projects.models import Project
from tests.builds.webhooks.sending import BAD, GOOD, advance, names, pass_time, send_due, tell_all

MakeEndpoint = Callable[..., WebhookEndpoint]
Move = Callable[..., Build]
DONE = (Status.RUNNING, Status.COMPLETED)


def body(delivery: Delivery) -> Any:
    return json.loads(bytes(delivery.body))


def test_every_status_has_an_event_name() -> None:
    assert set(EVENT_NAMES) == set(Status)
    assert sorted(EVENT_NAMES.values()) == sorted(EventName)
    assert sorted(RESULT_EVENTS) == ["build.cancelled", "build.completed", "build.failed"]


def test_each_status_change_becomes_a_delivery_in_order(make_endpoint: MakeEndpoint, move: Move) -> None:
    endpoint = make_endpoint()
    build = move(Status.RUNNING, Status.QUEUED, Status.RUNNING, Status.FAILED)

    tell_all()

    deliveries = Delivery.objects.filter(endpoint=endpoint)
    assert names(deliveries) == ["build.queued", "build.running", "build.queued", "build.running", "build.failed"]
    assert {delivery.job_id for delivery in deliveries} == {build.pk}
    assert not BuildEvent.objects.filter(kind="status", is_told=False).exists()


def test_a_message_describes_the_event_and_not_later_changes(make_endpoint: MakeEndpoint, move: Move) -> None:
    make_endpoint()
    build = move(Status.RUNNING, Status.FAILED)

    tell_all()

    queued, running, failed = (body(delivery) for delivery in Delivery.objects.order_by("position"))
    assert [message["type"] for message in (queued, running, failed)] == [
        "build.queued",
        "build.running",
        "build.failed",
    ]
    assert [message["data"]["status"] for message in (queued, running, failed)] == ["queued", "running", "failed"]
    assert [message["data"]["attempt"] for message in (queued, running, failed)] == [0, 1, 1]
    assert (queued["data"]["startedAt"], running["data"]["startedAt"] is None) == (None, False)
    assert (running["data"]["finishedAt"], running["data"]["verdict"]) == (None, None)
    assert failed["data"]["verdict"]["code"] == "build_failed"
    assert failed["data"]["durationMs"] >= 0
    assert {message["data"]["jobId"] for message in (queued, running, failed)} == {str(build.pk)}
    assert failed["data"]["links"]["self"] == f"/v1/builds/{build.pk}"


def test_links_are_absolute_if_the_installation_s_url_is_set(
    make_endpoint: MakeEndpoint, move: Move, settings: Settings
) -> None:
    settings.CHEF_URL = "https://chef.example.com"
    make_endpoint()
    build = move()

    tell_all()

    assert body(Delivery.objects.get())["data"]["links"]["self"] == f"https://chef.example.com/v1/builds/{build.pk}"


def test_an_endpoint_gets_only_subscribed_events_of_its_scope(
    make_endpoint: MakeEndpoint, move: Move, owner: User, other: User
) -> None:
    mine, theirs = move(*DONE, name="mine"), move(by=other)
    results = make_endpoint(events=list(RESULT_EVENTS))
    one = make_endpoint(project=mine.project, events=["build.completed"])
    none = make_endpoint(project=Project.objects.create(owner=owner, name="quiet"))
    everyone, _ = endpoints.create_for_installation(url="https://example.com/all", events=["build.completed"])
    first, second = move(*DONE), advance(theirs, *DONE)
    again = advance(actions.retry_build(mine, by=owner), *DONE)

    tell_all()

    delivered = {
        endpoint.pk: set(endpoint.deliveries.values_list("job_id", flat=True)) for endpoint in (results, one, none)
    }
    assert delivered == {results.pk: {first.pk, again.pk}, one.pk: {again.pk}, none.pk: set()}
    assert set(everyone.deliveries.values_list("job_id", flat=True)) == {first.pk, second.pk, again.pk}
    assert set(names(Delivery.objects.all())) == {"build.completed"}


def test_events_before_creation_or_while_disabled_are_not_sent(make_endpoint: MakeEndpoint, move: Move) -> None:
    move(Status.RUNNING)
    endpoint = make_endpoint()
    tell_all()
    endpoints.change_endpoint(endpoint, active=False)
    move(Status.RUNNING)
    tell_all()

    endpoints.change_endpoint(endpoint, active=True)
    tell_all()

    assert not endpoint.deliveries.exists()


def test_a_project_s_first_build_is_sent_to_its_own_webhook(owner: User) -> None:
    upload: Any = {"files": [NewFile("index.html", b"x")], "dependencies": {}, "strategy": {}}

    build, secret = actions.submit_project_with_webhook(
        by=owner, name="todo", webhook_url="https://example.com/x", **upload
    )
    advance(build, *DONE)
    tell_all()

    assert (secret or "").startswith("whsec_")
    assert names(Delivery.objects.filter(endpoint__project=build.project)) == ["build.completed"]


def test_an_event_committed_late_is_delivered_after_higher_numbers(make_endpoint: MakeEndpoint, move: Move) -> None:
    """An event, as readers see it, whose transaction took its number early and committed late."""
    make_endpoint()
    early, late = move(), move()
    event = BuildEvent.objects.get(build=early)
    row = {field.attname: getattr(event, field.attname) for field in BuildEvent._meta.concrete_fields}
    event.delete()
    tell_all()
    assert set(Delivery.objects.values_list("job_id", flat=True)) == {late.pk}

    BuildEvent.objects.create(**row)
    tell_all()

    assert set(Delivery.objects.values_list("job_id", flat=True)) == {early.pk, late.pk}


def test_a_rolled_back_delivery_is_created_again(
    make_endpoint: MakeEndpoint, move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_endpoint()
    move()

    def die(*_: object) -> Any:
        raise RuntimeError("killed")

    with monkeypatch.context() as broken:
        broken.setattr(outbox, "_deliveries", die)
        with pytest.raises(RuntimeError):
            tell_events()
    assert BuildEvent.objects.filter(is_told=False).exists()

    tell_all()
    assert Delivery.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_concurrent_senders_deliver_each_event_once(make_endpoint: MakeEndpoint, move: Move) -> None:
    make_endpoint(), make_endpoint()
    for _ in range(20):
        move(*DONE)
    start = threading.Barrier(4)

    def deliver(_: int) -> int:
        start.wait()
        try:
            total = 0
            while count := tell_events():
                total += count
            return total
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(deliver, range(4)))

    assert sum(counts) == 60
    assert Delivery.objects.count() == 120
    for build in Build.objects.all():
        made = (
            Delivery.objects.filter(job_id=build.pk).order_by("created_at", "position").values_list("name", flat=True)
        )
        assert list(dict.fromkeys(made)) == ["build.queued", "build.running", "build.completed"]


def test_the_database_refuses_a_second_delivery_of_an_event(make_endpoint: MakeEndpoint, move: Move) -> None:
    make_endpoint(), move()
    tell_all()
    first = Delivery.objects.get()

    with pytest.raises(IntegrityError), transaction.atomic():
        Delivery.objects.create(
            endpoint=first.endpoint, position=first.position, name=first.name, body=b"", give_up_at=timezone.now()
        )


def test_a_deleted_project_s_last_events_are_still_delivered(
    make_endpoint: MakeEndpoint, move: Move, owner: User
) -> None:
    endpoint = make_endpoint()
    build = move(Status.RUNNING)
    gone = make_endpoint(project=build.project)

    actions.delete_project(build.project, by=owner)

    assert names(endpoint.deliveries.all()) == ["build.queued", "build.running", "build.cancelled"]
    assert not WebhookEndpoint.objects.filter(pk=gone.pk).exists()
    assert len(send_due(GOOD)) == 3


def test_query_count_does_not_grow_with_events_and_endpoints(make_endpoint: MakeEndpoint, move: Move) -> None:
    make_endpoint(), move(*DONE)
    with CaptureQueriesContext(connection) as few:
        tell_events()
    for _ in range(3):
        make_endpoint(), move(*DONE)
    with CaptureQueriesContext(connection) as many:
        tell_events()

    assert Delivery.objects.count() > 20  # many, but fewer than SQLite accepts in one statement
    assert len(many) == len(few)


def test_an_empty_outbox_takes_one_query_without_a_lock(move: Move) -> None:
    move()
    tell_all()

    with CaptureQueriesContext(connection) as queries:
        assert tell_events() == 0

    assert len(queries) == 1
    assert "FOR UPDATE" not in queries.captured_queries[0]["sql"]


def test_old_finished_deliveries_are_deleted_with_their_tries(make_endpoint: MakeEndpoint, move: Move) -> None:
    make_endpoint(), move()
    send_due(GOOD)
    pass_time(days=29)
    move()
    send_due(BAD)
    assert outbox.forget_old() == 0

    pass_time(days=2)

    assert outbox.forget_old() > 0
    assert [delivery.status for delivery in Delivery.objects.all()] == ["pending"]
    assert Delivery.objects.get().log.count() == 1
