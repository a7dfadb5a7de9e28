"""Claiming, leases and fences, against the real database."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from builds import actions
from builds.models import Attempt, Build, BuildEvent, LogChunk, Priority
from builds.queue.claims import LOCAL_BUILDS, BuildLease, claim
from builds.reaper import reap_abandoned
from chef.jobs.capacity import OwnerQueueFullError, QueueFullError
from chef.jobs.leases import LeaseLostError
from chef.jobs.models import Status
from chef.jobs.reaping import wake_up_for_waiting
from chef.jobs.wakeups import WorkerQueue
from projects.models import Project, Revision

QueueBuild = Callable[..., Build]
T = TypeVar("T")


def finish(lease: BuildLease | None) -> Build:
    assert lease
    lease.end(Status.COMPLETED)
    return lease.build


def at_once(count: int, work: Callable[[], T]) -> list[T]:
    """What `count` threads get that start together, each with a database connection of its own."""
    start = threading.Barrier(count)

    def run(_: int) -> T:
        start.wait()
        try:
            return work()
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_claim_raises_the_fence_and_takes_a_lease(queue_build: QueueBuild) -> None:
    build = queue_build()

    lease = claim("worker-1")

    assert lease
    build.refresh_from_db()
    assert (build.status, build.fence, build.worker) == (Status.RUNNING, 1, "worker-1")
    assert build.lease_expires_at
    assert build.lease_expires_at > timezone.now()
    assert Attempt.objects.get(build=build).number == 1


def test_claim_finds_nothing_when_nothing_waits(db: None) -> None:
    assert claim("worker") is None


def test_claim_order_is_priority_then_fewest_running_then_age(
    queue_build: QueueBuild, owner: User, other: User
) -> None:
    first, second = queue_build(), queue_build()
    theirs = queue_build(by=other)
    urgent = queue_build(priority=Priority.HIGH)
    whenever = queue_build(by=other, priority=Priority.LOW)

    claimed = [lease.build.pk for _ in range(5) if (lease := claim("w"))]

    assert claimed == [urgent.pk, theirs.pk, first.pk, second.pk, whenever.pk]


def test_claim_skips_an_owner_at_the_limit_without_blocking_others(
    queue_build: QueueBuild, other: User, settings: Settings
) -> None:
    settings.OWNER_MAX_RUNNING = 1
    mine, waiting, theirs = queue_build(), queue_build(), queue_build(by=other)

    claimed = [lease.build.pk for _ in range(3) if (lease := claim("w"))]

    assert claimed == [mine.pk, theirs.pk]
    assert Build.objects.get(pk=waiting.pk).status == Status.QUEUED


def test_a_long_queue_of_one_owner_does_not_keep_another_s_first_build_waiting(
    queue_build: QueueBuild, owner: User, other: User
) -> None:
    mine = [queue_build()]
    mine += [actions.queue_build(mine[0].revision, by=owner) for _ in range(300)]
    finish(claim("the only worker"))
    theirs = [queue_build(by=other), queue_build(by=other)]

    claimed = [finish(claim("the only worker")) for _ in range(4)]

    assert claimed == [theirs[0], mine[1], theirs[1], mine[2]]


def test_high_goes_before_normal_whoever_was_served_last(queue_build: QueueBuild, other: User) -> None:
    queue_build(by=other)
    queue_build()
    finish(claim("w"))
    finish(claim("w"))
    theirs, mine = queue_build(by=other), queue_build(priority=Priority.HIGH)

    claimed = [claim("w"), claim("w")]

    assert [lease and lease.build for lease in claimed] == [mine, theirs]


@pytest.mark.django_db(transaction=True)
def test_workers_that_claim_at_once_keep_to_the_fair_order(queue_build: QueueBuild, owner: User) -> None:
    mine = queue_build()
    for _ in range(300):
        actions.queue_build(mine.revision, by=owner)
    finish(claim("w"))
    others = [queue_build(by=User.objects.create_user(name)).pk for name in ("ann", "ben", "cem")]

    claimed = at_once(4, lambda: claim("w"))

    owners = [lease.build.owner_id for lease in claimed if lease]
    assert {lease.build.pk for lease in claimed if lease} > set(others)
    assert owners.count(owner.pk) == 1


@pytest.mark.django_db(transaction=True)
def test_workers_that_claim_at_once_share_fairly_between_two_long_queues(
    queue_build: QueueBuild, owner: User, other: User
) -> None:
    for user in (owner, other):
        first = queue_build(by=user)
        for _ in range(7):
            actions.queue_build(first.revision, by=user)

    claimed = at_once(8, lambda: claim("w"))

    assert sorted(lease.build.owner_id for lease in claimed if lease) == [owner.pk] * 4 + [other.pk] * 4


@pytest.mark.django_db(transaction=True)
def test_workers_that_claim_at_once_keep_to_the_owner_s_limit(
    queue_build: QueueBuild, owner: User, settings: Settings
) -> None:
    settings.OWNER_MAX_RUNNING = 2
    mine = queue_build()
    for _ in range(9):
        actions.queue_build(mine.revision, by=owner)

    claimed = at_once(6, lambda: claim("w"))

    assert sum(lease is not None for lease in claimed) == 2
    assert Build.objects.filter(status=Status.RUNNING).count() == 2


def test_claim_leaves_a_build_alone_until_its_back_off_is_over(queue_build: QueueBuild) -> None:
    build = queue_build()
    Build.objects.filter(pk=build.pk).update(available_at=timezone.now() + timedelta(seconds=60))

    assert claim("w") is None


@pytest.mark.django_db(transaction=True)
def test_workers_that_claim_at_once_never_get_the_same_build(queue_build: QueueBuild) -> None:
    builds = {queue_build().pk for _ in range(6)}
    claimed: list[object] = []

    def work() -> None:
        while lease := claim(threading.current_thread().name):
            claimed.append(lease.build.pk)

    at_once(4, work)

    assert len(claimed) == len(builds)
    assert set(claimed) == builds


# --- How much may wait -------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_and_keeps_nothing(queue_build: QueueBuild, other: User, settings: Settings) -> None:
    settings.MAX_QUEUED = 2
    queue_build(), queue_build()

    with pytest.raises(QueueFullError, match=r"send it again in \d+ s") as full:
        queue_build(by=other)

    assert 1 <= full.value.retry_after <= 300
    assert (Project.objects.count(), Revision.objects.count(), Build.objects.count()) == (2, 2, 2)


def test_an_owner_with_a_full_queue_is_refused_and_others_are_not(
    queue_build: QueueBuild, other: User, settings: Settings
) -> None:
    settings.OWNER_MAX_QUEUED = 1
    queue_build()

    with pytest.raises(OwnerQueueFullError, match="cancel builds that you no longer need") as full:
        queue_build()

    assert 1 <= full.value.retry_after <= 300
    assert Project.objects.count() == 1
    assert queue_build(by=other).status == Status.QUEUED


def test_a_build_that_starts_makes_room(queue_build: QueueBuild, settings: Settings) -> None:
    settings.OWNER_MAX_QUEUED = settings.MAX_QUEUED = 1
    queue_build()
    claim("w")

    assert queue_build().status == Status.QUEUED


def test_a_build_that_a_fault_puts_back_is_never_refused(queue_build: QueueBuild, settings: Settings) -> None:
    settings.OWNER_MAX_QUEUED = settings.MAX_QUEUED = 1
    queue_build()
    claim("silent")
    queue_build()
    Build.objects.filter(status=Status.RUNNING).update(lease_expires_at=timezone.now() - timedelta(seconds=1))

    reap_abandoned()

    assert Build.objects.filter(status=Status.QUEUED).count() == 2


@pytest.mark.django_db(transaction=True)
def test_submissions_that_come_at_once_keep_to_the_owner_s_limit(queue_build: QueueBuild, settings: Settings) -> None:
    settings.OWNER_MAX_QUEUED = 3

    def submit() -> Build | OwnerQueueFullError:
        try:
            return queue_build()
        except OwnerQueueFullError as full:
            return full

    answers = at_once(8, submit)

    assert sum(isinstance(answer, Build) for answer in answers) == 3
    assert (Build.objects.count(), Project.objects.count()) == (3, 3)


# --- Leases ------------------------------------------------------------------------------------------------------


def test_an_overtaken_attempt_can_write_nothing(queue_build: QueueBuild) -> None:
    build = queue_build()
    lease = claim("slow")
    assert lease
    Build.objects.filter(pk=build.pk).update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    assert reap_abandoned() == 1

    with pytest.raises(LeaseLostError), lease.writing(progress=99):
        LogChunk.objects.create(build=build, attempt=1, sequence=1, phase="build", stream="stdout", text="late")
    with pytest.raises(LeaseLostError):
        lease.end(Status.COMPLETED)

    build.refresh_from_db()
    assert (build.status, build.progress) == (Status.QUEUED, 0)
    assert not LogChunk.objects.exists()
    assert lease.lost.is_set()


@pytest.mark.django_db(transaction=True)
def test_a_lease_is_renewed_while_its_block_runs_and_lost_on_cancel(
    queue_build: QueueBuild, owner: User, settings: Settings
) -> None:
    settings.LEASE_SECONDS = 2
    build = queue_build()
    lease = claim("w")
    assert lease

    with lease.kept_alive():
        time.sleep(2.5)
        assert not reap_abandoned()
        actions.cancel_build(Build.objects.get(pk=build.pk), by=owner)
        assert lease.lost.wait(2)

    build.refresh_from_db()
    assert build.status == Status.CANCELLED


def test_an_infra_fault_is_retried_with_back_off_until_the_attempts_are_spent(queue_build: QueueBuild) -> None:
    build = queue_build()
    waits = []

    for _ in range(3):
        Build.objects.filter(pk=build.pk).update(available_at=timezone.now())
        assert claim("w")
        Build.objects.filter(pk=build.pk).update(lease_expires_at=timezone.now() - timedelta(seconds=1))
        reap_abandoned()
        build.refresh_from_db()
        waits.append(round((build.available_at - timezone.now()).total_seconds()))

    assert waits[:2] == [2, 4]
    assert build.status == Status.FAILED
    assert build.verdict
    assert (build.verdict["code"], build.verdict["class"]) == ("attempts_exhausted", "infra")
    assert [attempt.outcome for attempt in build.attempts.all()] == ["worker_lost"] * 3
    assert BuildEvent.objects.filter(build=build, to_status=Status.FAILED).count() == 1


@pytest.fixture
def workers() -> Iterator[WorkerQueue]:
    """Where workers are woken up, with nothing pending."""
    assert LOCAL_BUILDS.workers
    LOCAL_BUILDS.workers.rq.empty()
    yield LOCAL_BUILDS.workers
    LOCAL_BUILDS.workers.rq.empty()


def test_a_submitted_build_wakes_a_worker_up_after_the_commit_only(
    queue_build: QueueBuild,
    workers: WorkerQueue,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    with django_capture_on_commit_callbacks(execute=False) as callbacks:
        queue_build()
    assert workers.pending() == 0

    callbacks[0]()
    assert workers.pending() == 1


def test_the_reaper_wakes_workers_up_for_builds_whose_wake_up_was_lost(
    queue_build: QueueBuild, workers: WorkerQueue
) -> None:
    queue_build(), queue_build()

    assert wake_up_for_waiting(LOCAL_BUILDS) == 2
    assert wake_up_for_waiting(LOCAL_BUILDS) == 0  # the wake-ups are pending


def test_a_silent_redis_neither_fails_nor_holds_up_a_submission(
    queue_build: QueueBuild, settings: Settings, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"

    with django_capture_on_commit_callbacks(execute=True):
        build = queue_build()

    assert Build.objects.get(pk=build.pk).status == Status.QUEUED
    assert wake_up_for_waiting(LOCAL_BUILDS) == 0
