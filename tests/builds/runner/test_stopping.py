"""Attempts that are interrupted in the middle of each phase: cancelled, overtaken, handed back."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from builds import actions
from builds.models import Build, PhaseName
from builds.queue.claims import BuildLease
from builds.reaper import reap_abandoned, sweep
from builds.sandbox.contract import Identity, SandboxError
from chef.jobs.leases import LeaseLostError
from chef.jobs.models import Status
from tests.builds.runner.attempts import (
    Claimed,
    all_rows,
    claim_again,
    events,
    expire_lease,
    let_happen,
    log,
    once,
    outcomes,
    phases,
    raises,
    run,
    stored,
)
from tests.builds.sandbox.fake import FakeSandbox, Process

BEFORE_CLEANUP = [name for name in PhaseName if name != PhaseName.CLEANUP]

pytestmark = pytest.mark.usefixtures("log_at_the_end_of_phases")

each_phase = pytest.mark.parametrize("phase", list(PhaseName))
each_phase_before_cleanup = pytest.mark.parametrize("phase", BEFORE_CLEANUP)


# --- Cancelled, or overtaken -------------------------------------------------------------------------------------


@pytest.fixture(params=["heartbeat", "next write"])
def notices(request: pytest.FixtureRequest) -> Callable[[BuildLease], None]:
    """How an attempt notices that it has lost its build: before its next write, or during it."""
    return lambda lease: lease.lost.set() if request.param == "heartbeat" else None


@each_phase
def test_a_cancelled_attempt_writes_and_leaves_nothing(
    claimed: Claimed, sandbox: FakeSandbox, owner: User, notices: Callable[[BuildLease], None], phase: PhaseName
) -> None:
    lease, rows = claimed(), []

    def cancel() -> None:
        actions.cancel_build(Build.objects.get(), by=owner)
        rows.append(all_rows())
        notices(lease)

    let_happen(sandbox, phase, once(cancel))

    with pytest.raises(LeaseLostError):
        run(lease, sandbox)

    build = Build.objects.get()
    assert (build.status, build.phase) == (Status.CANCELLED, phase)
    assert (build.verdict or {})["code"] == "cancelled"
    assert (outcomes(build), phases(build)[phase]) == (["cancelled"], "interrupted")
    assert rows == [all_rows()]
    assert stored() == {}
    assert sandbox.leftovers() == []


@each_phase
def test_an_overtaken_attempt_does_not_affect_its_successor(
    claimed: Claimed, sandbox: FakeSandbox, notices: Callable[[BuildLease], None], phase: PhaseName
) -> None:
    slow, others, rows = claimed(), [], []

    def overtake() -> None:
        expire_lease()
        reap_abandoned()
        others.append(claim_again())
        rows.append(all_rows())
        notices(slow)

    let_happen(sandbox, phase, once(overtake))

    with pytest.raises(LeaseLostError):
        run(slow, sandbox)

    build = Build.objects.get()
    assert (build.status, build.fence, build.faults) == (Status.RUNNING, 2, 1)
    assert outcomes(build) == ["worker_lost", "running"]
    assert rows == [all_rows()]
    assert stored() == {}
    assert sandbox.leftovers() == []
    sandbox.before.clear()
    assert run(others[0], sandbox).status == Status.COMPLETED


@each_phase_before_cleanup
def test_an_attempt_that_cannot_renew_its_lease_leaves_the_build_to_the_reaper(
    claimed: Claimed, sandbox: FakeSandbox, phase: PhaseName
) -> None:
    lease = claimed()
    let_happen(sandbox, phase, lease.lost.set)

    with pytest.raises(LeaseLostError):
        run(lease, sandbox)

    build = Build.objects.get()
    assert (build.status, phases(build)[phase]) == (Status.RUNNING, "running")
    assert stored() == {}
    assert sandbox.leftovers() == []
    expire_lease()
    assert reap_abandoned() == 1
    build.refresh_from_db()
    assert (build.status, outcomes(build), phases(build)[phase]) == (Status.QUEUED, ["worker_lost"], "interrupted")


def test_a_cancelled_attempt_leaves_failed_clean_up_to_the_sweeper(
    claimed: Claimed, sandbox: FakeSandbox, owner: User
) -> None:
    lease = claimed()
    let_happen(sandbox, PhaseName.BUILD, lambda: actions.cancel_build(Build.objects.get(), by=owner))
    let_happen(sandbox, PhaseName.CLEANUP, raises(SandboxError("no answer")))

    with pytest.raises(LeaseLostError):
        run(lease, sandbox)

    sandbox.before.clear()
    assert sandbox.leftovers() == [Identity(lease.build.pk, 1)]
    assert sweep(sandbox) == 1
    assert sandbox.leftovers() == []


# --- Handed back -------------------------------------------------------------------------------------------------


@each_phase_before_cleanup
def test_a_stopping_worker_hands_its_build_back(claimed: Claimed, sandbox: FakeSandbox, phase: PhaseName) -> None:
    lease = claimed()
    let_happen(sandbox, phase, lease.interrupted.set)

    build = run(lease, sandbox)

    assert (build.status, build.phase, build.progress, build.faults) == (Status.QUEUED, "", 0, 0)
    assert build.available_at <= timezone.now()
    assert (build.verdict, outcomes(build)) == (None, ["handed_back"])
    assert events(build)[-2:] == ["cleanup", "queued"]
    assert phases(build)["cleanup"] == "completed"
    # Between two phases: the first has succeeded, and the next does not start.
    ended = "completed" if phase == PhaseName.PREPARATION else "interrupted"
    assert list(phases(build).items())[-2] == (phase, ended)
    assert not build.artifacts.exists()
    assert stored() == {}
    assert sandbox.leftovers() == []


def test_a_stopping_worker_stops_its_command(claimed: Claimed, sandbox: FakeSandbox) -> None:
    lease = claimed()

    def wait(process: Process) -> None:
        process.emit("half of it\n")
        lease.interrupted.set()
        process.hang()

    sandbox.programs["build"] = wait

    build = run(lease, sandbox)

    assert (build.status, phases(build)["build"]) == (Status.QUEUED, "interrupted")
    assert "half of it\n" in log(build, "stdout")


def test_an_almost_finished_build_is_not_handed_back(claimed: Claimed, sandbox: FakeSandbox) -> None:
    lease = claimed()
    let_happen(sandbox, PhaseName.CLEANUP, lease.interrupted.set)

    build = run(lease, sandbox)

    assert (build.status, outcomes(build)) == (Status.COMPLETED, ["completed"])


def test_a_build_that_was_handed_back_runs_elsewhere(claimed: Claimed, sandbox: FakeSandbox) -> None:
    lease = claimed()
    let_happen(sandbox, PhaseName.BUILD, once(lease.interrupted.set))
    run(lease, sandbox)

    build = run(claim_again(), sandbox)

    assert (build.status, build.fence, build.faults) == (Status.COMPLETED, 2, 0)
    assert outcomes(build) == ["handed_back", "completed"]
    assert list(build.artifacts.values_list("attempt", flat=True)) == [2]


def test_a_build_cancelled_while_its_worker_stops_stays_cancelled(
    claimed: Claimed, sandbox: FakeSandbox, owner: User
) -> None:
    lease = claimed()
    let_happen(sandbox, PhaseName.BUILD, lease.interrupted.set)
    let_happen(sandbox, PhaseName.CLEANUP, lambda: actions.cancel_build(Build.objects.get(), by=owner))

    with pytest.raises(LeaseLostError):
        run(lease, sandbox)

    assert Build.objects.get().status == Status.CANCELLED
