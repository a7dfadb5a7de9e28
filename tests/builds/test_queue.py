"""Claiming, leases and fences, against the real database."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from builds import actions, queue
from builds.models import Attempt, Build, BuildEvent, LogChunk, Priority, Status
from builds.queue import LeaseLost, claim
from builds.reaper import reap_abandoned, ring_for_waiting

QueueBuild = Callable[..., Build]


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
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(claimed) == len(builds)
    assert set(claimed) == builds


def test_an_overtaken_attempt_can_write_nothing(queue_build: QueueBuild) -> None:
    build = queue_build()
    lease = claim("slow")
    assert lease
    Build.objects.filter(pk=build.pk).update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    assert reap_abandoned() == 1

    with pytest.raises(LeaseLost), lease.writing(progress=99):
        LogChunk.objects.create(build=build, attempt=1, sequence=1, phase="build", stream="stdout", text="late")
    with pytest.raises(LeaseLost):
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


def test_a_submitted_build_rings_after_the_commit_only(
    queue_build: QueueBuild, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    queue._bell().empty()

    with django_capture_on_commit_callbacks(execute=False) as callbacks:
        queue_build()
    assert queue.bells_waiting() == 0

    callbacks[0]()
    assert queue.bells_waiting() == 1
    queue._bell().empty()


def test_the_reaper_rings_for_builds_whose_bell_was_lost(queue_build: QueueBuild) -> None:
    queue_build(), queue_build()
    queue._bell().empty()

    assert ring_for_waiting() == 2
    assert ring_for_waiting() == 0  # the bells wait for a worker
    queue._bell().empty()


def test_a_silent_redis_neither_fails_nor_holds_up_a_submission(
    queue_build: QueueBuild, settings: Settings, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    queue._bell.cache_clear()

    with django_capture_on_commit_callbacks(execute=True):
        build = queue_build()

    assert Build.objects.get(pk=build.pk).status == Status.QUEUED
    assert ring_for_waiting() == 0
    queue._bell.cache_clear()
