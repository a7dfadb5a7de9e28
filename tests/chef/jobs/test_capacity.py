"""Limits of queued builds, in total and per owner."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import Settings

from builds.models import Build
from builds.queue.claims import claim
from builds.reaper import reap_abandoned
from chef.jobs.capacity import OwnerQueueFullError, QueueFullError
from chef.jobs.models import Status
from projects.models import Project, Revision
from tests.concurrency import at_once

QueueBuild = Callable[..., Build]


def test_a_full_queue_refuses_and_stores_nothing(queue_build: QueueBuild, other: User, settings: Settings) -> None:
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


def test_a_started_build_makes_room(queue_build: QueueBuild, settings: Settings) -> None:
    settings.OWNER_MAX_QUEUED = settings.MAX_QUEUED = 1
    queue_build()
    claim("w")

    assert queue_build().status == Status.QUEUED


def test_a_requeued_build_is_never_refused(queue_build: QueueBuild, settings: Settings) -> None:
    settings.OWNER_MAX_QUEUED = settings.MAX_QUEUED = 1
    queue_build()
    claim("silent")
    queue_build()
    Build.objects.filter(status=Status.RUNNING).update(lease_expires_at=timezone.now() - timedelta(seconds=1))

    reap_abandoned()

    assert Build.objects.filter(status=Status.QUEUED).count() == 2


@pytest.mark.django_db(transaction=True)
def test_concurrent_submissions_respect_the_owner_s_limit(queue_build: QueueBuild, settings: Settings) -> None:
    settings.OWNER_MAX_QUEUED = 3

    def submit() -> Build | OwnerQueueFullError:
        try:
            return queue_build()
        except OwnerQueueFullError as full:
            return full

    answers = at_once(8, submit)

    assert sum(isinstance(answer, Build) for answer in answers) == 3
    assert (Build.objects.count(), Project.objects.count()) == (3, 3)
