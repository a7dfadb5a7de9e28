"""The queue of generations: order, limits, retries and wake-ups. See tests.chef.jobs for what builds share."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from chef.jobs.capacity import OwnerQueueFullError, QueueFullError
from chef.jobs.models import Status
from chef.jobs.reaping import reap_abandoned, wake_up_for_waiting
from projects.generations.actions import GenerationOptions, request_generation
from projects.generations.queue import GENERATIONS, claim
from projects.models import Generation, Project
from tests.concurrency import at_once
from tests.projects.generations.runs import code_of

Ask = Callable[..., Generation]


def request(by: User) -> Generation:
    return request_generation(by=by, prompt="A page", strategy={}, options=GenerationOptions())


def test_owners_with_fewest_running_are_first_and_then_the_oldest(owner: User, other: User) -> None:
    first, second, theirs = request(owner), request(owner), request(other)

    claimed = [lease.job for _ in range(4) if (lease := claim("w"))]

    assert claimed == [first, theirs, second]
    assert {(one.status, one.fence, one.worker) for one in claimed} == {(Status.RUNNING, 1, "w")}


@pytest.mark.django_db(transaction=True)
def test_concurrent_claims_get_different_generations(owner: User) -> None:
    queued = {request(owner).pk for _ in range(6)}

    claimed = [lease.job.pk for lease in at_once(6, lambda: claim("w")) if lease]

    assert len(claimed) == len(set(claimed))
    while lease := claim("w"):
        claimed.append(lease.job.pk)
    assert sorted(claimed) == sorted(queued)


def test_a_full_queue_refuses_and_stores_nothing(owner: User, other: User, settings: Settings) -> None:
    settings.OWNER_MAX_QUEUED, settings.MAX_QUEUED = 1, 2
    request(owner)
    with pytest.raises(OwnerQueueFullError, match="cancel generations that you no longer need") as of_owner:
        request(owner)
    request(other)
    with pytest.raises(QueueFullError, match="2 generations are waiting") as of_all:
        request(User.objects.create_user("third"))

    assert (of_owner.value.retry_after, of_all.value.retry_after) == (30, 30)
    assert Generation.objects.count() == Project.objects.count() == 2


def test_a_silent_worker_s_generation_is_retried_with_back_off_until_attempts_are_exhausted(ask: Ask) -> None:
    generation = ask()
    waits = []

    for _ in range(3):
        Generation.objects.update(available_at=timezone.now())
        assert claim("host:1")
        Generation.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
        assert reap_abandoned(GENERATIONS) == 1
        generation.refresh_from_db()
        waits.append(round((generation.available_at - timezone.now()).total_seconds()))

    assert waits[:2] == [2, 4]
    assert (generation.status, code_of(generation)) == (Status.FAILED, "attempts_exhausted")
    assert "host:1 was silent for 15 s" in str(generation.error)
    assert reap_abandoned(GENERATIONS) == 0


@pytest.mark.redis
def test_workers_are_woken_up_after_the_commit_and_after_a_lost_wake_up(
    ask: Ask, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    GENERATIONS.workers.rq.empty()
    with django_capture_on_commit_callbacks(execute=True):
        ask()
        assert GENERATIONS.workers.pending() == 0
    assert GENERATIONS.workers.pending() == 1
    (job,) = GENERATIONS.workers.rq.jobs
    assert job.func_name == "builds.generations.generate_next"  # also known to workers of the previous release

    GENERATIONS.workers.rq.empty()

    assert wake_up_for_waiting(GENERATIONS) == 1
    assert wake_up_for_waiting(GENERATIONS) == 0  # already pending
    GENERATIONS.workers.rq.empty()
