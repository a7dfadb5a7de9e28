"""System errors in the middle of each phase, and how the next attempt goes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.utils import timezone
from pytest_django import Settings

from builds import actions
from builds.models import Build, PhaseName
from builds.queue.claims import BuildLease
from builds.reaper import reap_abandoned, sweep
from builds.runner import Run
from builds.sandbox.contract import Identity, Limits, SandboxError
from chef.jobs.leases import LeaseLostError
from chef.jobs.models import Status
from projects.environment import Secret
from tests.builds.runner.attempts import (
    IMAGE,
    PAGE,
    Claimed,
    claim_again,
    events,
    expire_lease,
    let_happen,
    once,
    outcomes,
    phases,
    raises,
    run,
    stored,
    verdict_of,
)
from tests.builds.sandbox.fake import FakeSandbox

LIMITS = Limits(memory_bytes=1, cpus=1, pids=1, disk_bytes=1)
BEFORE_CLEANUP = [name for name in PhaseName if name != PhaseName.CLEANUP]

pytestmark = pytest.mark.usefixtures("log_at_the_end_of_phases")

each_phase_before_cleanup = pytest.mark.parametrize("phase", BEFORE_CLEANUP)


def assert_waits_for_its_next_attempt(build: Build, *, fault: str, started: datetime) -> None:
    assert (build.status, build.phase, build.progress) == (Status.QUEUED, "", 0)
    assert (build.verdict, build.finished_at, build.faults) == (None, None, 1)
    assert started + timedelta(seconds=2) <= build.available_at <= timezone.now() + timedelta(seconds=2)
    assert outcomes(build) == [fault]
    assert events(build)[-1] == "queued"
    assert stored() == {}


@each_phase_before_cleanup
def test_an_engine_error_requeues_the_build_with_back_off(
    claimed: Claimed, sandbox: FakeSandbox, phase: PhaseName
) -> None:
    lease, started = claimed(), timezone.now()
    let_happen(sandbox, phase, raises(SandboxError("the engine did not answer")))

    build = run(lease, sandbox)

    assert_waits_for_its_next_attempt(build, fault="engine_unavailable", started=started)
    assert list(phases(build).items())[-2:] == [(phase, "failed"), ("cleanup", "completed")]
    assert not build.artifacts.exists()
    assert sandbox.leftovers() == []


@pytest.mark.parametrize("call", ["image_id", "open", "put", "run", "take"])
def test_every_call_of_the_sandbox_may_fail(claimed: Claimed, sandbox: FakeSandbox, call: str) -> None:
    lease, started = claimed(), timezone.now()
    sandbox.before[call] = raises(SandboxError("the engine did not answer"))

    build = run(lease, sandbox)

    assert_waits_for_its_next_attempt(build, fault="engine_unavailable", started=started)
    assert sandbox.leftovers() == []


def test_an_unavailable_engine_requeues_the_build(claimed: Claimed) -> None:
    lease, started = claimed(), timezone.now()

    def open_sandbox() -> FakeSandbox:
        raise SandboxError("connection refused")

    Run(lease, open_sandbox).execute()

    build = Build.objects.get()
    assert_waits_for_its_next_attempt(build, fault="engine_unavailable", started=started)
    assert phases(build) == {"preparation": "failed", "cleanup": "completed"}


def test_a_missing_image_requeues_the_build(claimed: Claimed, sandbox: FakeSandbox) -> None:
    lease, started = claimed(), timezone.now()
    sandbox.images = {}

    build = run(lease, sandbox)

    assert_waits_for_its_next_attempt(build, fault="image_missing", started=started)


def test_a_failed_clean_up_is_left_to_the_sweeper(claimed: Claimed, sandbox: FakeSandbox) -> None:
    lease = claimed()
    let_happen(sandbox, PhaseName.CLEANUP, raises(SandboxError("no answer")))

    build = run(lease, sandbox)

    sandbox.before.clear()
    assert (build.status, phases(build)["cleanup"]) == (Status.COMPLETED, "completed")
    assert sandbox.leftovers() == [Identity(build.pk, 1)]
    assert sweep(sandbox) == 1
    assert sandbox.leftovers() == []


def test_a_failing_store_requeues_the_build(claimed: Claimed, sandbox: FakeSandbox, artifact_folder: Path) -> None:
    lease, started = claimed(), timezone.now()
    artifact_folder.write_bytes(b"")  # a file cannot contain folders

    build = run(lease, sandbox)

    artifact_folder.unlink()
    assert_waits_for_its_next_attempt(build, fault="storage_unavailable", started=started)
    assert list(phases(build).items())[-2:] == [("artifacts", "failed"), ("cleanup", "completed")]
    assert sandbox.leftovers() == []


@contextmanager
def database_refusing(statement: str, *, times: int) -> Iterator[None]:
    """A database that fails in this thread's first `times` statements with that beginning."""
    left = times

    def refuse(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal left
        if sql.startswith(statement) and left:
            left -= 1
            raise OperationalError("the database is gone")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(refuse):
        yield


@pytest.mark.parametrize(
    ("table", "last_phases"),
    [
        ("builds_phaserun", {}),
        ("builds_artifact", {"artifacts": "failed", "cleanup": "completed"}),
    ],
)
def test_a_database_error_requeues_the_build(
    claimed: Claimed, sandbox: FakeSandbox, table: str, last_phases: dict[str, str]
) -> None:
    lease, started = claimed(), timezone.now()

    with database_refusing(f'INSERT INTO "{table}"', times=2):
        build = run(lease, sandbox)

    assert_waits_for_its_next_attempt(build, fault="storage_unavailable", started=started)
    assert dict(list(phases(build).items())[-2:]) == last_phases
    assert not build.artifacts.exists()
    assert sandbox.leftovers() == []


def test_a_database_error_at_the_end_requeues_the_build(claimed: Claimed, sandbox: FakeSandbox) -> None:
    lease, started = claimed(), timezone.now()

    with database_refusing('UPDATE "builds_build" SET "usage"', times=1):
        build = run(lease, sandbox)

    assert_waits_for_its_next_attempt(build, fault="storage_unavailable", started=started)
    assert sandbox.leftovers() == []


def test_a_database_outage_leaves_the_build_to_the_reaper(claimed: Claimed, sandbox: FakeSandbox) -> None:
    lease, started = claimed(), timezone.now()

    with database_refusing('UPDATE "builds_build"', times=1_000), pytest.raises(OperationalError):
        run(lease, sandbox)
    expire_lease()

    assert reap_abandoned() == 1
    assert_waits_for_its_next_attempt(Build.objects.get(), fault="worker_lost", started=started)


def test_a_lost_commit_confirmation_keeps_the_outputs(
    claimed: Claimed, sandbox: FakeSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = claimed()
    end = lease.end

    def end_unconfirmed(status: Status, **changes: Any) -> None:
        BuildLease.end(BuildLease(Build.objects.get(), lease.attempt), status, **changes)
        monkeypatch.setattr(lease, "end", end)
        raise OperationalError("the connection broke after the commit")

    monkeypatch.setattr(lease, "end", end_unconfirmed)

    with pytest.raises(LeaseLostError):
        run(lease, sandbox)

    build = Build.objects.get()
    assert (build.status, outcomes(build)) == (Status.COMPLETED, ["completed"])
    assert list(stored().values()) == [PAGE]


def test_an_unexpected_error_requeues_the_build(claimed: Claimed, sandbox: FakeSandbox) -> None:
    lease, started = claimed(), timezone.now()
    let_happen(sandbox, PhaseName.BUILD, raises(ValueError("a bug")))

    build = run(lease, sandbox)

    assert_waits_for_its_next_attempt(build, fault="internal_error", started=started)
    assert sandbox.leftovers() == []


def test_an_error_during_cancellation_leaves_the_build_cancelled(
    claimed: Claimed, sandbox: FakeSandbox, owner: User
) -> None:
    def cancel_and_fail() -> None:
        actions.cancel_build(Build.objects.get(), by=owner)
        raise SandboxError("the container is gone")

    lease = claimed()
    let_happen(sandbox, PhaseName.BUILD, cancel_and_fail)

    with pytest.raises(LeaseLostError):
        run(lease, sandbox)

    assert Build.objects.get().status == Status.CANCELLED
    assert sandbox.leftovers() == []


# --- The attempts after that -------------------------------------------------------------------------------------


def test_a_build_completes_normally_at_its_second_attempt(claimed: Claimed, sandbox: FakeSandbox) -> None:
    lease = claimed()
    let_happen(sandbox, PhaseName.ARTIFACTS, once(raises(SandboxError("the engine did not answer"))))
    run(lease, sandbox)

    build = run(claim_again(), sandbox)

    assert (build.status, build.fence, build.faults) == (Status.COMPLETED, 2, 1)
    assert outcomes(build) == ["engine_unavailable", "completed"]
    assert set(phases(build, attempt=2).values()) == {"completed"}
    assert list(build.artifacts.values_list("attempt", flat=True)) == [2]
    assert list(stored().values()) == [PAGE]


def test_an_attempt_removes_the_leftovers_of_a_killed_one(claimed: Claimed, sandbox: FakeSandbox) -> None:
    killed = claimed()
    sandbox.open(Identity(killed.build.pk, 1), image=IMAGE, limits=LIMITS)
    expire_lease()
    reap_abandoned()

    build = run(claim_again(), sandbox)

    assert (build.status, outcomes(build)) == (Status.COMPLETED, ["worker_lost", "completed"])
    assert sandbox.leftovers() == []


@each_phase_before_cleanup
def test_a_build_without_attempts_left_fails_and_names_the_last_error(
    claimed: Claimed, sandbox: FakeSandbox, phase: PhaseName
) -> None:
    lease = claimed()
    let_happen(sandbox, phase, raises(SandboxError("the engine did not answer")))
    waits = []
    for _ in range(2):
        build = run(lease, sandbox)
        waits.append(round((build.available_at - timezone.now()).total_seconds()))
        lease = claim_again()

    build = run(lease, sandbox)

    assert waits == [2, 4]
    assert verdict_of(build) == ("infra", "attempts_exhausted", phase)
    assert (build.verdict or {})["evidence"] == ["engine_unavailable: the engine did not answer"]
    assert (build.faults, outcomes(build)) == (3, ["engine_unavailable"] * 3)
    assert events(build)[-1] == "failed"
    assert sandbox.leftovers() == []


def test_the_last_error_is_shown_without_the_build_s_secrets(
    claimed: Claimed, sandbox: FakeSandbox, settings: Settings
) -> None:
    settings.MAX_ATTEMPTS = 1
    lease = claimed(secrets={"TOKEN": Secret("s3cret-value-of-token")})
    let_happen(sandbox, PhaseName.BUILD, raises(SandboxError("could not start TOKEN=s3cret-value-of-token")))

    build = run(lease, sandbox)

    [evidence] = (build.verdict or {})["evidence"]
    assert evidence.startswith("engine_unavailable: could not start TOKEN=")
    assert "s3cret" not in evidence
