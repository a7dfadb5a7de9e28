"""An attempt with all its threads: the lease's heartbeat, and the log written while a command runs."""

import threading
import time

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from builds import actions
from builds.models import Build
from chef.jobs.leases import LeaseLostError
from chef.jobs.models import Status
from tests.builds.runner.attempts import (
    PAGE,
    Claimed,
    log,
    phases,
    run,
)
from tests.builds.sandbox.fake import FakeSandbox, Process

SOON = 10  # seconds; on an idle machine each of these tests takes well under two

# Threads have their own database connections and see only committed data.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def quick_heartbeat(settings: Settings) -> None:
    settings.LEASE_SECONDS = 2  # renewed four times in that time


def test_a_command_is_stopped_soon_after_its_build_is_cancelled(
    claimed: Claimed, sandbox: FakeSandbox, owner: User
) -> None:
    lease = claimed()

    def wait(process: Process) -> None:
        actions.cancel_build(Build.objects.get(), by=owner)
        process.hang()

    sandbox.programs["build"] = wait
    started = time.monotonic()

    with lease.kept_alive(), pytest.raises(LeaseLostError):
        run(lease, sandbox)

    assert time.monotonic() - started < SOON
    assert Build.objects.get().status == Status.CANCELLED
    assert sandbox.leftovers() == []


def test_a_command_is_stopped_soon_after_its_worker_is(claimed: Claimed, sandbox: FakeSandbox) -> None:
    lease = claimed()
    is_told = threading.Event()

    def wait(process: Process) -> None:
        is_told.set()
        process.hang()

    sandbox.programs["build"] = wait
    started = time.monotonic()

    with lease.kept_alive(should_hand_back=is_told.is_set):
        build = run(lease, sandbox)

    assert time.monotonic() - started < SOON
    assert (build.status, build.faults, phases(build)["build"]) == (Status.QUEUED, 0, "interrupted")
    assert sandbox.leftovers() == []


def test_output_can_be_read_while_the_command_runs(claimed: Claimed, sandbox: FakeSandbox) -> None:
    lease = claimed()
    read = ""

    def wait(process: Process) -> None:
        nonlocal read
        process.emit("compiling\n")
        deadline = time.monotonic() + SOON
        while "compiling" not in read and time.monotonic() < deadline:
            time.sleep(0.01)
            read = log(lease.build, "stdout")
        process.write("dist/index.html", PAGE)

    sandbox.programs["build"] = wait

    build = run(lease, sandbox)

    assert read == log(build, "stdout") == "added 3 packages\ncompiling\n"
    assert build.status == Status.COMPLETED
