"""Claiming builds, against the real database."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import Settings

from builds import actions
from builds.models import Attempt, Build, Priority
from builds.queue.claims import BuildLease, claim
from chef.jobs.models import Status
from tests.concurrency import at_once

QueueBuild = Callable[..., Build]


def finish(lease: BuildLease | None) -> Build:
    assert lease
    lease.end(Status.COMPLETED)
    return lease.build


def test_claim_raises_the_fence_and_takes_a_lease(queue_build: QueueBuild) -> None:
    build = queue_build()

    lease = claim("worker-1")

    assert lease
    build.refresh_from_db()
    assert (build.status, build.fence, build.worker) == (Status.RUNNING, 1, "worker-1")
    assert build.lease_expires_at
    assert build.lease_expires_at > timezone.now()
    assert Attempt.objects.get(build=build).number == 1


def test_claim_finds_nothing_in_an_empty_queue(db: None) -> None:
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


@pytest.mark.slow
def test_a_long_queue_of_one_owner_does_not_keep_another_s_first_build_waiting(
    queue_build: QueueBuild, owner: User, other: User
) -> None:
    mine = [queue_build()]
    mine += [actions.queue_build(mine[0].revision, by=owner) for _ in range(300)]
    finish(claim("the only worker"))
    theirs = [queue_build(by=other), queue_build(by=other)]

    claimed = [finish(claim("the only worker")) for _ in range(4)]

    assert claimed == [theirs[0], mine[1], theirs[1], mine[2]]


def test_high_priority_goes_first_regardless_of_who_was_served_last(queue_build: QueueBuild, other: User) -> None:
    queue_build(by=other)
    queue_build()
    finish(claim("w"))
    finish(claim("w"))
    theirs, mine = queue_build(by=other), queue_build(priority=Priority.HIGH)

    claimed = [claim("w"), claim("w")]

    assert [lease and lease.build for lease in claimed] == [mine, theirs]


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_concurrent_workers_keep_the_fair_order(queue_build: QueueBuild, owner: User) -> None:
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
def test_concurrent_workers_share_fairly_between_two_long_queues(
    queue_build: QueueBuild, owner: User, other: User
) -> None:
    for user in (owner, other):
        first = queue_build(by=user)
        for _ in range(7):
            actions.queue_build(first.revision, by=user)

    claimed = at_once(8, lambda: claim("w"))

    assert sorted(lease.build.owner_id for lease in claimed if lease) == [owner.pk] * 4 + [other.pk] * 4


@pytest.mark.django_db(transaction=True)
def test_concurrent_workers_keep_to_the_owner_s_limit(queue_build: QueueBuild, owner: User, settings: Settings) -> None:
    settings.OWNER_MAX_RUNNING = 2
    mine = queue_build()
    for _ in range(9):
        actions.queue_build(mine.revision, by=owner)

    claimed = at_once(6, lambda: claim("w"))

    assert sum(lease is not None for lease in claimed) == 2
    assert Build.objects.filter(status=Status.RUNNING).count() == 2


def test_claim_skips_a_build_until_its_back_off_is_over(queue_build: QueueBuild) -> None:
    build = queue_build()
    Build.objects.filter(pk=build.pk).update(available_at=timezone.now() + timedelta(seconds=60))

    assert claim("w") is None


@pytest.mark.django_db(transaction=True)
def test_concurrent_workers_never_claim_the_same_build(queue_build: QueueBuild) -> None:
    builds = {queue_build().pk for _ in range(6)}
    claimed: list[object] = []

    def work() -> None:
        while lease := claim(threading.current_thread().name):
            claimed.append(lease.build.pk)

    at_once(4, work)

    assert len(claimed) == len(builds)
    assert set(claimed) == builds
