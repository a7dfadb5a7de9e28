"""The forecast compared with what then happens: real claims on the real database, in virtual time."""

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from builds.models import Build, Priority, WorkerHost
from builds.queue import forecast
from builds.queue.claims import claim
from builds.queue.forecast import LONGEST_WAIT, USUAL_WAIT, Outlook, queue_document, queue_documents, seconds_to_room
from chef.jobs.models import Status
from tests.builds.queue.virtual_queue import Outcome, VirtualQueue

pytestmark = pytest.mark.once

QueueBuild = Callable[..., Build]


# --- Accuracy ------------------------------------------------------------------------------------------------------


def one_long_queue(queue: VirtualQueue, owners: list[User]) -> None:
    queue.add(queue.kind(owners[0], seconds=20), 30)


def three_owners(queue: VirtualQueue, owners: list[User]) -> None:
    for owner, seconds, count in zip(owners, (20, 60, 5), (25, 10, 4), strict=True):
        queue.add(queue.kind(owner, seconds=seconds), count)


def three_priorities(queue: VirtualQueue, owners: list[User]) -> None:
    first, second, third = (queue.kind(owner, seconds=s) for owner, s in zip(owners, (20, 60, 5), strict=True))
    queue.add(first, 20)
    queue.add(second, 6, priority=Priority.HIGH)
    queue.add(third, 6, priority=Priority.LOW)
    queue.add(second, 5)


def some_in_back_off(queue: VirtualQueue, owners: list[User]) -> None:
    first, second, third = (queue.kind(owner, seconds=s) for owner, s in zip(owners, (21, 57, 6), strict=True))
    queue.add(first, 18)
    queue.add(second, 8)
    queue.add(second, 3, back_off=31)
    queue.add(third, 4, back_off=64)
    queue.add(first, 4, priority=Priority.HIGH, back_off=17)


Fill = Callable[[VirtualQueue, list[User]], None]
# Waiting builds, the number of workers, and the owner's limit of running builds.
RUNS: dict[str, tuple[Fill, int, int]] = {
    "one long queue": (one_long_queue, 1, 0),
    "three owners": (three_owners, 3, 0),
    "three priorities, and a limit": (three_priorities, 5, 2),
    "some in back-off": (some_in_back_off, 4, 0),
    "some in back-off, and a limit": (some_in_back_off, 4, 2),
}


@pytest.fixture
def owners(db: None) -> list[User]:
    return [User.objects.create_user(name) for name in ("ann", "ben", "cem")]


def share(found: list[bool]) -> float:
    return sum(found) / len(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_positions_and_times_are_accurate_within_a_factor_of_two(
    name: str, owners: list[User], monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    fill, workers, settings.OWNER_MAX_RUNNING = RUNS[name]
    outcomes: list[Outcome] = []
    # One run may be slow or fast as a whole: nine in ten only holds over many runs.
    for seed in range(3):
        queue = VirtualQueue(monkeypatch, workers, seed=seed)
        fill(queue, owners)
        queue.play(show_every=8)
        outcomes += queue.outcomes()

    assert len(outcomes) > 150
    assert share([outcome.is_in_time for outcome in outcomes]) >= 0.9
    assert share([outcome.waited > outcome.p90 + 0.5 for outcome in outcomes]) <= 0.2
    assert share([outcome.is_in_place for outcome in outcomes]) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 2])
@pytest.mark.parametrize("seed", range(3))
def test_with_known_durations_positions_are_exact_and_times_to_the_second(
    seed: int, limit: int, owners: list[User], monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.OWNER_MAX_RUNNING = limit
    queue, dice = VirtualQueue(monkeypatch, 4, seed=seed, spread=0), random.Random(seed)
    for _ in range(40):
        # Each has its own project and takes as long as that project's builds: no two end at the same moment.
        kind = queue.kind(dice.choice(owners), seconds=dice.uniform(5, 90), past=forecast.OWN_HISTORY)
        back_off = dice.choice([0, 0, 0, dice.uniform(1, 300)])
        queue.add(kind, 1, priority=dice.choice([*Priority, Priority.NORMAL]), back_off=back_off)

    queue.play(show_every=5)

    for outcome in queue.outcomes():
        assert outcome.position == outcome.claimed
        assert (outcome.p50, outcome.p90) == pytest.approx((outcome.waited, outcome.waited), abs=1)


def test_positions_of_one_owner_s_builds_are_exact_for_any_duration(
    owners: list[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = VirtualQueue(monkeypatch, 2)
    queue.add(queue.kind(owners[0], seconds=20), 30)

    queue.play(show_every=5)

    assert all(outcome.position == outcome.claimed for outcome in queue.outcomes())


# --- What blocks a build -------------------------------------------------------------------------------------------


def reason(build: Build, workers: int, limit: int) -> str:
    """Why a build waits when no free worker finds anything to claim."""
    if build.available_at > timezone.now():
        return "backoff"
    running = Build.objects.filter(status=Status.RUNNING)
    if limit and running.filter(owner=build.owner_id).count() >= limit:
        return "owner_limit"
    assert running.count() == workers
    return "all_workers_busy"


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 2])
def test_blocked_by_is_correct_at_each_moment_of_a_run(
    limit: int, owners: list[User], monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.OWNER_MAX_RUNNING = limit
    queue = VirtualQueue(monkeypatch, 4)
    some_in_back_off(queue, owners)
    queue.claim_all()
    seen = set()

    while queue.advance():
        shown = queue.show()
        waiting = Build.objects.filter(status=Status.QUEUED)
        assert {pk: document["blockedBy"] for pk, document in shown.items()} == {
            build.pk: reason(build, 4, limit) for build in waiting
        }
        seen |= {document["blockedBy"] for document in shown.values()}

    assert seen == {"backoff", "all_workers_busy"} | ({"owner_limit"} if limit else set())


def test_nothing_blocks_builds_that_idle_workers_take_next(
    owners: list[User], monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.OWNER_MAX_RUNNING = 2
    queue = VirtualQueue(monkeypatch, 5)
    mine, theirs = (queue.kind(owner, seconds=20) for owner in owners[:2])
    builds = [*queue.add(mine, 4), *queue.add(theirs, 1)]

    shown = queue.show()
    queue.claim_all()

    free = {pk for pk, document in shown.items() if document["blockedBy"] is None}
    assert free == set(queue.claims)
    assert {shown[pk]["etaSeconds"]["p90"] for pk in free} == {0}
    # Two workers stay idle, so the others do not wait for workers.
    assert {shown[build.pk]["blockedBy"] for build in builds if build.pk not in free} == {"owner_limit"}


def test_without_workers_positions_are_shown_but_no_times(owners: list[User], monkeypatch: pytest.MonkeyPatch) -> None:
    queue = VirtualQueue(monkeypatch, 2)
    builds = queue.add(queue.kind(owners[0], seconds=20), 3)
    WorkerHost.objects.update(seen_at=queue.now - timedelta(days=1))

    shown = queue.show()

    expected = {"etaSeconds": None, "blockedBy": "no_workers"}
    assert [shown[build.pk] for build in builds] == [{"position": place, **expected} for place in (1, 2, 3)]


def test_without_history_positions_are_shown_but_no_times(owners: list[User], monkeypatch: pytest.MonkeyPatch) -> None:
    queue = VirtualQueue(monkeypatch, 1)
    first, second = queue.add(queue.kind(owners[0], seconds=20, past=0), 2)

    shown = queue.show()

    assert shown[first.pk] == {"position": 1, "etaSeconds": None, "blockedBy": None}
    assert shown[second.pk] == {"position": 2, "etaSeconds": None, "blockedBy": "all_workers_busy"}


def test_durations_come_from_the_project_s_builds_or_from_all_if_it_has_few(
    owners: list[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = VirtualQueue(monkeypatch, 1, spread=0)
    quick, slow = queue.kind(owners[0], seconds=10), queue.kind(owners[0], seconds=100)
    new = queue.kind(owners[0], seconds=1, past=forecast.OWN_HISTORY - 1)
    builds = [queue.add(kind, 1)[0] for kind in (quick, slow, new)] + queue.add(quick, 1)

    shown = queue.show()

    starts = [shown[build.pk]["etaSeconds"]["p50"] for build in builds]
    assert starts[:3] == [0, 10, 110]
    assert 110 < starts[3] <= 210


# --- Capacity ------------------------------------------------------------------------------------------------------


def test_room_is_expected_when_the_next_build_starts(owners: list[User], monkeypatch: pytest.MonkeyPatch) -> None:
    queue = VirtualQueue(monkeypatch, 1, spread=0)
    mine, theirs = queue.kind(owners[0], seconds=40), queue.kind(owners[1], seconds=70)
    queue.add(mine, 2)
    queue.claim_all()
    queue.add(theirs, 2)
    queue.now += timedelta(seconds=10)
    forecast.forget()

    assert seconds_to_room() == seconds_to_room(owners[1].pk) == 30
    assert seconds_to_room(owners[0].pk) == 100
    assert seconds_to_room(owners[2].pk) == USUAL_WAIT  # has no waiting builds


def test_retry_after_is_bounded(owners: list[User], monkeypatch: pytest.MonkeyPatch) -> None:
    queue = VirtualQueue(monkeypatch, 1, spread=0)
    kind = queue.kind(owners[0], seconds=4000)

    assert seconds_to_room() == USUAL_WAIT
    queue.add(kind, 2)
    forecast.forget()
    assert seconds_to_room() == 1
    queue.claim_all()
    forecast.forget()
    assert seconds_to_room() == LONGEST_WAIT


# --- Shared reads --------------------------------------------------------------------------------------------------


class Reading:
    """Replaces the read and its clock: counts reads, and can make them slow."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.cost, self.clock = 0, 0.0, 1000.0
        real = forecast.look_ahead

        def look_ahead() -> Outlook:
            self.count += 1
            return replace(real(), cost=self.cost)

        monkeypatch.setattr(forecast, "look_ahead", look_ahead)
        clocks = SimpleNamespace(monotonic=lambda: self.clock, perf_counter=time.perf_counter)
        monkeypatch.setattr(forecast, "time", clocks)


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    return Reading(monkeypatch)


def test_one_read_serves_all_requests_for_a_second(queue_build: QueueBuild, reading: Reading) -> None:
    build = queue_build()

    for _ in range(3):
        queue_document(build)
        reading.clock += 0.4
    assert reading.count == 1
    queue_document(build)
    assert reading.count == 2


def test_reading_takes_four_queries_for_any_queue(
    queue_build: QueueBuild, other: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    builds = [queue_build(), queue_build(by=other), queue_build(priority=Priority.HIGH)]

    with django_assert_num_queries(4):
        shown = queue_documents(builds)
    with django_assert_num_queries(0):
        assert queue_documents(builds) == shown


def test_nothing_is_read_for_builds_that_do_not_wait(queue_build: QueueBuild, reading: Reading) -> None:
    build = queue_build()
    claim("worker")
    build.refresh_from_db()

    assert queue_document(build) is None
    assert reading.count == 0


def test_a_new_build_triggers_a_read_at_once(queue_build: QueueBuild, reading: Reading) -> None:
    queue_document(queue_build())
    reading.clock += 0.05

    assert queue_document(queue_build()) == {"position": 2, "etaSeconds": None, "blockedBy": "no_workers"}
    assert reading.count == 2


def test_when_reads_are_slow_a_new_build_is_placed_by_fair_order(
    owners: list[User], monkeypatch: pytest.MonkeyPatch, reading: Reading
) -> None:
    reading.cost = 0.15
    queue = VirtualQueue(monkeypatch, 1, spread=0)
    mine, theirs, new = (queue.kind(owner, seconds=10) for owner in owners)
    queue.add(mine, 5)
    queue.add(theirs, 2)
    queue.add(theirs, 3, priority=Priority.LOW)
    queue_documents(Build.objects.filter(status=Status.QUEUED))
    reading.clock += 0.5

    came = {
        "their third": queue.add(theirs, 1),
        "the first of a third owner": queue.add(new, 1),
        "before all": queue.add(new, 1, priority=Priority.HIGH),
        "behind all": queue.add(new, 1, priority=Priority.LOW),
    }
    shown = {name: queue_documents([build])[build.pk] for name, [build] in came.items()}

    assert reading.count == 1
    assert {name: document["position"] for name, document in shown.items()} == {
        "their third": 5,
        "the first of a third owner": 1,
        "before all": 1,
        "behind all": 8,
    }
    # The same as for the builds whose places they take.
    starts = [document["etaSeconds"]["p50"] for document in shown.values()]
    assert starts == [40, 0, 0, 70]


def test_when_reads_are_slow_the_very_first_build_has_no_forecast(queue_build: QueueBuild, reading: Reading) -> None:
    reading.cost = 0.15
    seconds_to_room()

    assert queue_document(queue_build()) == {"position": 1, "etaSeconds": None, "blockedBy": None}
    assert reading.count == 1


def test_a_build_claimed_since_the_read_is_about_to_start(queue_build: QueueBuild, reading: Reading) -> None:
    reading.cost = 0.15
    started = queue_build()
    claim("worker")
    queue_document(queue_build())
    reading.clock += 0.1

    # The caller loaded `started` while it was still waiting.
    assert queue_document(started) == {"position": 1, "etaSeconds": {"p50": 0, "p90": 0}, "blockedBy": None}
    assert reading.count == 1


def test_concurrent_requests_share_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    readings: list[Any] = []

    def look_ahead() -> Any:
        time.sleep(0.2)
        readings.append(SimpleNamespace(documents={}, cost=0.0))
        return readings[-1]

    monkeypatch.setattr(forecast, "look_ahead", look_ahead)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: forecast._outlook(), range(8)))

    assert len(readings) == 1
    assert all(outlook is readings[0] for outlook in found)
