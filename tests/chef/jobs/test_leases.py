"""Leases and fences: which worker may write about a job, and until when."""

import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import Settings

from builds import actions
from builds.models import Build, LogChunk
from builds.queue.claims import claim
from builds.reaper import reap_abandoned
from chef.jobs.leases import LeaseLostError
from chef.jobs.models import Status

pytestmark = pytest.mark.slow

QueueBuild = Callable[..., Build]


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
