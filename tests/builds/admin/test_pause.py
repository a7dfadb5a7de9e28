"""Pausing the queue, and what the operations page shows."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import F
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.test import APIClient

from builds import actions
from builds.external import claim_build
from builds.heartbeats import Beat
from builds.models import Build, Delivery, Heartbeat, QueuePause, WorkerHost
from builds.operations import health
from builds.queue import forecast
from builds.queue.claims import LOCAL_BUILDS, claim
from builds.queue.pause import pause_queue, resume_queue
from builds.webhooks.endpoints import create_endpoint
from builds.webhooks.outbox import send_test
from chef.jobs.wakeups import WorkerQueue
from projects.generations.actions import GenerationOptions, request_generation
from projects.generations.queue import claim as claim_generation
from projects.models import Quarantine
from tests.builds.admin.conftest import MakeBuild
from tests.builds.signing import SECRET

QueueBuild = Callable[..., Build]
OPERATIONS, PAUSE = "/admin/operations/", "/admin/operations/pause/"


def queue_of(client: APIClient, build: Build) -> dict[str, object]:
    forecast.forget()
    return dict(client.get(f"/v1/builds/{build.pk}").json()["queue"])


def test_a_paused_queue_starts_nothing_and_running_builds_continue(
    operator: Client,
    queue_build: QueueBuild,
    owner: User,
    make_client: Callable[..., APIClient],
    settings: Settings,
) -> None:
    settings.WORKER_SECRETS = [SECRET]
    client = make_client(owner)
    running, waiting, external = queue_build(), queue_build(name="waiting"), queue_build(is_external=True)
    lease = claim("host:1")
    assert lease

    page = operator.post(PAUSE, {"do": "pause", "reason": "The disk is full."}, follow=True).content.decode()

    assert "The disk is full." in page
    assert "No build starts." in page
    assert claim("host:2") is None
    assert claim_build("elsewhere") is None
    assert not LOCAL_BUILDS.in_claim_order(timezone.now()).exists()
    with lease.writing(progress=50):
        pass
    running.refresh_from_db()
    assert (running.status, running.progress) == ("running", 50)
    assert queue_of(client, waiting) == {"position": 1, "etaSeconds": None, "blockedBy": "paused"}
    assert queue_of(client, external) == {"position": 1, "etaSeconds": None, "blockedBy": "paused"}
    assert queue_of(client, queue_build(name="new"))["blockedBy"] == "paused"
    assert health._hosts()["queue"]["paused"] is True

    page = operator.post(PAUSE, {"do": "resume"}, follow=True).content.decode()

    assert "The queue is resumed" in page
    taken = claim("host:2")
    assert taken
    assert taken.build == waiting
    assert claim_build("elsewhere")
    assert health._hosts()["queue"]["paused"] is False
    messages = [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")]
    assert messages[0] == "Paused the queue. Reason: The disk is full."
    assert messages[1].startswith("Resumed the queue, which was paused at ")
    assert {entry.user.username for entry in LogEntry.objects.all()} == {"operator"}


def test_pausing_and_resuming_again_changes_nothing(operator: Client, db: None) -> None:
    for _ in range(2):
        operator.post(PAUSE, {"do": "pause", "reason": "first"})
    operator.post(PAUSE, {"do": "pause", "reason": "second"})
    assert QueuePause.objects.get().reason == "first"
    for _ in range(2):
        operator.post(PAUSE, {"do": "resume"})

    assert not QueuePause.objects.exists()
    assert LogEntry.objects.count() == 2
    assert operator.get(PAUSE).status_code == 405


def test_there_is_at_most_one_pause(owner: User) -> None:
    assert pause_queue(by=owner, reason="x")
    assert not pause_queue(by=owner)
    assert resume_queue()
    assert not resume_queue()


def test_a_pause_between_the_check_and_the_claim_is_respected(
    queue_build: QueueBuild, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = queue_build()
    looks = []
    in_claim_order = LOCAL_BUILDS.in_claim_order

    def look(now: datetime) -> object:
        looks.append(now)
        if len(looks) > 1:
            return in_claim_order(now)
        # As before the pause.
        return Build.objects.filter(pk=build.pk).annotate(owner_served_at=F("created_at"))

    pause_queue(by=owner)
    monkeypatch.setattr(LOCAL_BUILDS, "in_claim_order", look)

    assert claim("w") is None
    build.refresh_from_db()
    assert (build.status, len(looks)) == ("queued", 2)


@pytest.mark.django_db(transaction=True)
def test_concurrent_quarantine_and_claim_leave_nothing_running(queue_build: QueueBuild, other: User) -> None:
    for number in range(10):
        build = queue_build(name=f"p{number}")
        start = threading.Barrier(2)

        def claiming(start: threading.Barrier = start) -> None:
            try:
                start.wait(10)
                claim("w")
            finally:
                connection.close()

        thread = threading.Thread(target=claiming)
        thread.start()
        start.wait(10)
        actions.quarantine_project(build.project, by=other, reason="x")
        thread.join(30)

        build.refresh_from_db()
        assert build.status == "queued"
        assert claim("w") is None


def test_nothing_is_generated_for_a_quarantined_project(owner: User, other: User) -> None:
    generation = request_generation(by=owner, prompt="A page", strategy={}, options=GenerationOptions())
    Quarantine.objects.create(project=generation.project, by=other, reason="x")
    assert claim_generation("w") is None

    Quarantine.objects.all().delete()

    assert claim_generation("w")


# --- The page ----------------------------------------------------------------------------------------------------


def test_the_page_shows_workers_queue_and_failures(
    operator: Client, ended_build: MakeBuild, queue_build: QueueBuild, other: User
) -> None:
    ended_build("type_error", name="a")
    ended_build("out_of_memory", name="b")
    ended_build(name="c")
    running = queue_build(name="running")
    claim("host-9:1")
    Build.objects.filter(pk=running.pk).update(lease_expires_at=timezone.now() - timedelta(seconds=100))
    queue_build(name="d", by=other, priority=10)
    engine = {"version": "20.10.24", "containers": 3, "diskFree": 2**30, "diskTotal": 2**32}
    WorkerHost.objects.create(name="host-9", workers=4, engine=engine, seen_at=timezone.now())
    WorkerHost.objects.create(
        name="host-8", workers=4, engine_fault="cannot connect", seen_at=timezone.now() - timedelta(hours=1)
    )
    Beat(Heartbeat.Service.REAPER).record()

    page = operator.get(OPERATIONS).content.decode()

    for text in (
        "running #1",
        "host-9:1",
        "20.10.24, 3 containers run",
        "cannot connect",
        "gone",
        "high",
        "type_error",
    ):
        assert text in page
    assert "3, of which 2 failed (67 %)" in page
    assert "1 builds have been silent past their lease, the first for 1 min 40 s" in page
    assert page.count('role="img"') == 2
    assert "not there" in page  # of the sender
    assert "style=" not in page
    assert "<script>" not in page


def test_the_page_of_an_empty_installation_says_what_to_start(operator: Client, db: None) -> None:
    page = operator.get(OPERATIONS).content.decode()

    assert "run_workers" in page
    assert "no lease has run out" in page


def test_the_page_takes_few_queries_for_any_number_of_rows(
    operator: Client,
    ended_build: MakeBuild,
    queue_build: QueueBuild,
    django_assert_max_num_queries: DjangoAssertNumQueries,
    owner: User,
) -> None:
    for number in range(5):
        ended_build("type_error", name=f"f{number}")
    for number in range(30):
        queue_build(name=f"q{number}")
    pause_queue(by=owner)

    with django_assert_max_num_queries(12):
        operator.get(OPERATIONS)


def test_an_unreachable_redis_is_shown_and_breaks_nothing_else(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = WorkerQueue("builds", "builds.tasks.run_next")
    monkeypatch.setattr("chef.jobs.wakeups.settings.REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setattr(LOCAL_BUILDS, "workers", silent)

    assert "none is lost" in operator.get(OPERATIONS).content.decode()


# --- Who sends ---------------------------------------------------------------------------------------------------


def test_health_counts_deliveries_and_misses_a_sender_only_when_they_are_late(owner: User) -> None:
    def counts() -> tuple[int, bool]:
        found = health._deliveries()
        return found["pending"], found["are_stuck"]

    assert counts() == (0, False)
    endpoint, _ = create_endpoint(by=owner, url="https://example.com", events=["build.failed"], project=None)
    send_test(endpoint)
    assert counts() == (1, False)
    Delivery.objects.update(next_try_at=timezone.now() - timedelta(seconds=90))
    assert health._deliveries()["oldestSeconds"] in range(90, 100)
    assert counts() == (1, True)
    Beat(Heartbeat.Service.SENDER).record()
    assert counts() == (1, False)
    Heartbeat.objects.update(seen_at=timezone.now() - timedelta(minutes=5))
    assert counts() == (1, True)


def test_running_builds_are_shown_beside_many_waiting_ones(
    operator: Client, queue_build: QueueBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builds.operations.overview.MOST_WAITING", 2)
    for _ in range(2):
        queue_build()
    running = queue_build(name="the one that runs")
    Build.objects.exclude(pk=running.pk).update(available_at=timezone.now() + timedelta(hours=1))
    assert claim("host:1")

    page = operator.get(OPERATIONS).content.decode()

    assert "the one that runs #1" in page
    assert "2 or more wait" in page
