"""The state machine: one method changes the status, and constraints refuse invalid states."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from builds.models import Artifact, Build, BuildEvent, LogChunk, PhaseRun
from builds.queue.claims import claim
from builds.verdicts.evidence import verdict
from chef.jobs.models import TRANSITIONS, Status, TransitionRefusedError

VERDICT = verdict("build_failed", phase="build").as_json()

QueueBuild = Callable[..., Build]


@pytest.mark.parametrize("before", list(Status))
@pytest.mark.parametrize("after", list(Status))
def test_only_listed_transitions_are_allowed(before: Status, after: Status, queue_build: QueueBuild) -> None:
    build = in_status(queue_build(), before)
    events = BuildEvent.objects.filter(build=build, kind="status").count()

    if after in TRANSITIONS[before]:
        build.transition_to(after, **needed_for(after))
    else:
        with pytest.raises(TransitionRefusedError):
            build.transition_to(after, **needed_for(after))

    allowed = after in TRANSITIONS[before]
    assert Build.objects.get(pk=build.pk).status == (after if allowed else before)
    assert BuildEvent.objects.filter(build=build, kind="status").count() == events + allowed


def test_a_transition_from_a_stale_instance_is_refused_and_writes_nothing(queue_build: QueueBuild) -> None:
    build = queue_build()
    stale = Build.objects.get(pk=build.pk)
    claim("first")

    with pytest.raises(TransitionRefusedError):
        stale.transition_to(Status.CANCELLED, verdict=VERDICT)

    build.refresh_from_db()
    assert build.status == Status.RUNNING
    assert not BuildEvent.objects.filter(build=build, to_status=Status.CANCELLED).exists()


def test_ending_a_running_build_closes_its_attempt_and_phases(queue_build: QueueBuild) -> None:
    queue_build()
    lease = claim("worker")
    assert lease
    PhaseRun.objects.create(attempt=lease.attempt, name="build")

    lease.build.transition_to(Status.QUEUED, outcome="worker_lost")

    lease.attempt.refresh_from_db()
    assert (lease.attempt.outcome, lease.attempt.finished_at is not None) == ("worker_lost", True)
    assert lease.attempt.phases.get().status == PhaseRun.Status.INTERRUPTED


@pytest.mark.parametrize(
    "columns",
    [
        {"status": "completed"},
        {"finished_at": timezone.now()},
        {"status": "running"},
        {"lease_expires_at": timezone.now()},
        {"status": "failed", "finished_at": timezone.now()},
        {"verdict": VERDICT},
        {"status": "lost"},
        {"progress": 101},
    ],
)
def test_the_database_refuses_an_inconsistent_build(columns: dict[str, Any], queue_build: QueueBuild) -> None:
    build = queue_build()

    with pytest.raises(IntegrityError), transaction.atomic():
        Build.objects.filter(pk=build.pk).update(**columns)


def test_the_database_refuses_a_second_terminal_event(queue_build: QueueBuild) -> None:
    build = in_status(queue_build(), Status.COMPLETED)

    with pytest.raises(IntegrityError), transaction.atomic():
        BuildEvent.objects.create(build=build, kind="status", to_status="failed", fence=1)


def test_the_database_refuses_duplicates(queue_build: QueueBuild) -> None:
    build = queue_build()
    chunk = {"build": build, "attempt": 1, "sequence": 1, "phase": "build", "stream": "stdout", "text": "x"}
    artifact = {"build": build, "attempt": 1, "name": "a", "size": 1, "sha256": "x", "storage_key": "k"}
    LogChunk.objects.create(timestamp=timezone.now(), **chunk)
    Artifact.objects.create(**artifact)

    with pytest.raises(IntegrityError), transaction.atomic():
        LogChunk.objects.create(timestamp=timezone.now(), **chunk)
    with pytest.raises(IntegrityError), transaction.atomic():
        Artifact.objects.create(**artifact)
    with pytest.raises(IntegrityError), transaction.atomic():
        Build.objects.create(project=build.project, revision=build.revision, owner=build.owner, number=build.number)


def in_status(build: Build, status: Status) -> Build:
    """Bring a queued build to a status by allowed transitions."""
    if status != Status.QUEUED:
        build.transition_to(Status.RUNNING, **needed_for(Status.RUNNING))
    if status not in (Status.QUEUED, Status.RUNNING):
        build.transition_to(status, **needed_for(status))
    return build


def needed_for(status: Status) -> dict[str, Any]:
    if status == Status.RUNNING:
        return {"lease_expires_at": timezone.now() + timedelta(seconds=9)}
    return {"verdict": VERDICT} if status in (Status.FAILED, Status.CANCELLED) else {}
