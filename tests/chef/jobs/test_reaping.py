"""Retries after internal errors, and wake-ups: Redis may lose them, as the database is authoritative."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from builds.models import Build, BuildEvent
from builds.queue.claims import LOCAL_BUILDS, claim
from builds.reaper import reap_abandoned
from chef.jobs.models import Status
from chef.jobs.reaping import wake_up_for_waiting
from chef.jobs.wakeups import WorkerQueue

QueueBuild = Callable[..., Build]


def test_infrastructure_errors_are_retried_with_back_off_until_attempts_are_exhausted(queue_build: QueueBuild) -> None:
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
    """The workers' wake-up queue, emptied."""
    assert LOCAL_BUILDS.workers
    LOCAL_BUILDS.workers.rq.empty()
    yield LOCAL_BUILDS.workers
    LOCAL_BUILDS.workers.rq.empty()


@pytest.mark.redis
def test_a_submitted_build_wakes_up_a_worker_only_after_the_commit(
    queue_build: QueueBuild,
    workers: WorkerQueue,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    with django_capture_on_commit_callbacks(execute=False) as callbacks:
        queue_build()
    assert workers.pending() == 0

    callbacks[0]()
    assert workers.pending() == 1
    (job,) = workers.rq.jobs
    assert job.func_name == "builds.tasks.run_next"  # also known to workers of the previous release


@pytest.mark.redis
def test_the_reaper_repeats_lost_wake_ups(queue_build: QueueBuild, workers: WorkerQueue) -> None:
    queue_build(), queue_build()

    assert wake_up_for_waiting(LOCAL_BUILDS) == 2
    assert wake_up_for_waiting(LOCAL_BUILDS) == 0  # already pending


def test_a_silent_redis_neither_fails_nor_delays_a_submission(
    queue_build: QueueBuild, settings: Settings, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"

    with django_capture_on_commit_callbacks(execute=True):
        build = queue_build()

    assert Build.objects.get(pk=build.pk).status == Status.QUEUED
    assert wake_up_for_waiting(LOCAL_BUILDS) == 0
