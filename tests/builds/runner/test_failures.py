"""Final failures of builds: caused by the project, a limit or a policy. Only the sandbox is a fake."""

import time
from typing import Any

import pytest
from pytest_django import Settings

from builds.models import Build
from chef.jobs.models import Status
from projects.environment import Secret
from projects.files.paths import NewFile
from tests.builds.runner.attempts import (
    PAGE,
    Claimed,
    log,
    outcomes,
    phases,
    run,
    stored,
    verdict_of,
)
from tests.builds.sandbox.fake import FakeSandbox, Process, Program, says, writes

MIB = 1024**2

pytestmark = pytest.mark.usefixtures("log_at_the_end_of_phases")


def assert_failed_for_good(build: Build, sandbox: FakeSandbox) -> None:
    """It ended once, is not retried, has its verdict in the event, and left nothing behind."""
    assert build.status == Status.FAILED
    assert build.finished_at
    assert build.faults == 0
    assert build.verdict_class == (build.verdict or {})["class"]
    assert outcomes(build) == ["failed"]
    last = build.events.order_by("-pk")[0]
    assert (last.from_status, last.to_status, last.data) == ("running", "failed", {"verdict": build.verdict})
    assert phases(build)["cleanup"] == "completed"
    assert not build.artifacts.exists()
    assert stored() == {}
    assert sandbox.leftovers() == []


def test_files_without_a_recognisable_runtime(claimed: Claimed, sandbox: FakeSandbox) -> None:
    build = run(claimed(files=[NewFile("notes.dat", b"?")]), sandbox)

    assert verdict_of(build) == ("build", "no_runtime_detected", "preparation")
    assert phases(build) == {"preparation": "failed", "cleanup": "completed"}
    assert build.plan is None
    assert_failed_for_good(build, sandbox)


def test_an_environment_with_a_lost_key(claimed: Claimed, sandbox: FakeSandbox, settings: Settings) -> None:
    lease = claimed(env={"MODE": "test"}, secrets={"TOKEN": Secret("s3cret-value-of-token")})
    settings.SECRETS_KEYS = ["another key of the same length or more"]

    build = run(lease, sandbox)

    assert verdict_of(build) == ("infra", "environment_unreadable", "preparation")
    assert "MODE, TOKEN" in (build.verdict or {})["message"]
    assert phases(build) == {"preparation": "failed", "cleanup": "completed"}
    assert_failed_for_good(build, sandbox)


@pytest.mark.parametrize(
    ("script", "phase", "code"),
    [("install", "installation", "install_failed"), ("build", "build", "build_failed")],
)
def test_a_command_that_fails(claimed: Claimed, sandbox: FakeSandbox, script: str, phase: str, code: str) -> None:
    # Without a line ending: the last line counts too.
    sandbox.programs[script] = says("working\n", ("stderr", "error: it is broken"), exit_code=3)

    build = run(claimed(), sandbox)

    assert verdict_of(build) == ("build", code, phase)
    assert build.verdict
    assert (build.verdict["exitCode"], build.verdict["retryable"]) == (3, False)
    assert build.verdict["evidence"][0] == "error: it is broken"
    assert list(phases(build))[-2:] == [phase, "cleanup"]
    assert phases(build)[phase] == "failed"
    assert build.attempts.get().phases.get(name=phase).exit_code == 3
    assert log(build, "stderr") == "error: it is broken"
    assert_failed_for_good(build, sandbox)


def no_output(process: Process) -> None:
    process.write("elsewhere/index.html", PAGE)


def empty_output(process: Process) -> None:
    process.make_folder("dist")


def linked_output(process: Process) -> None:
    process.make_link("dist", "/etc")


@pytest.mark.parametrize(
    ("program", "cls", "code"),
    [
        (no_output, "build", "no_output"),
        (empty_output, "build", "no_output"),
        (linked_output, "policy", "unsafe_output"),
        (writes({f"dist/{number}": b"" for number in range(4)}), "limit", "too_many_artifacts"),
        (writes({"dist/a": bytes(600), "dist/b": bytes(600)}), "limit", "artifacts_too_large"),
    ],
)
def test_refused_outputs(
    claimed: Claimed, sandbox: FakeSandbox, settings: Settings, program: Program, cls: str, code: str
) -> None:
    settings.MAX_ARTIFACTS, settings.MAX_ARTIFACT_BYTES = 3, 1000
    sandbox.programs["build"] = program

    build = run(claimed(), sandbox)

    assert verdict_of(build) == (cls, code, "artifacts")
    assert phases(build) == {
        **dict.fromkeys(("preparation", "installation", "build"), "completed"),
        "artifacts": "failed",
        "cleanup": "completed",
    }
    assert_failed_for_good(build, sandbox)


# --- A build at a limit ------------------------------------------------------------------------------------------

LIMITS: dict[str, tuple[Program, str]] = {
    "timeout": (lambda process: process.hang(), "0.2 seconds"),
    "out_of_memory": (lambda process: process.allocate(65 * MIB), "64 MiB"),
    "process_limit": (lambda process: process.fork(20), "16"),
}


@pytest.mark.parametrize(("script", "phase"), [("install", "installation"), ("build", "build")])
@pytest.mark.parametrize("code", LIMITS)
def test_a_command_at_a_limit(
    claimed: Claimed, sandbox: FakeSandbox, settings: Settings, code: str, script: str, phase: str
) -> None:
    settings.PIDS_LIMIT = 16
    sandbox.programs[script], limit = LIMITS[code]

    build = run(claimed(strategy={"timeout": 200, "memory": 64 * MIB}), sandbox)

    assert verdict_of(build) == ("limit", code, phase)
    assert build.verdict
    assert limit in build.verdict["message"]
    assert build.verdict["exitCode"] == (137 if code == "out_of_memory" else None)
    assert phases(build)[phase] == "failed"
    assert_failed_for_good(build, sandbox)


def test_the_time_limit_covers_all_phases_together(claimed: Claimed, sandbox: FakeSandbox) -> None:
    left: dict[str, float] = {}

    def spend(process: Process) -> None:
        left[process.command.phase] = process.seconds_left
        time.sleep(0.05)
        process.write("dist/index.html", PAGE)

    sandbox.programs |= {"install": spend, "build": spend}

    run(claimed(strategy={"timeout": 60_000}), sandbox)

    assert 60 > left["installation"] >= left["build"] + 0.05


@pytest.mark.parametrize(
    ("wanted", "setting", "size"),
    [({"memory": 64 * MIB}, 512 * MIB, 65 * MIB), ({"memory": 1024 * MIB}, 64 * MIB, 65 * MIB)],
)
def test_a_strategy_may_lower_the_memory_limit_but_not_raise_it(
    claimed: Claimed, sandbox: FakeSandbox, settings: Settings, wanted: dict[str, Any], setting: int, size: int
) -> None:
    settings.DOCKER_MEMORY_LIMIT = setting
    sandbox.programs["build"] = lambda process: process.allocate(size)

    build = run(claimed(strategy=wanted), sandbox)

    assert verdict_of(build) == ("limit", "out_of_memory", "build")
    assert (build.plan or {})["memory"] == 64 * MIB


def test_a_strategy_may_not_raise_the_time_limit(claimed: Claimed, sandbox: FakeSandbox, settings: Settings) -> None:
    settings.WORKER_TIMEOUT = 0.1
    sandbox.programs["build"] = lambda process: process.hang()

    build = run(claimed(strategy={"timeout": 10_000}), sandbox)

    assert verdict_of(build) == ("limit", "timeout", "build")
    assert (build.plan or {})["timeout"] == 100


# --- A build against the policy ----------------------------------------------------------------------------------


def test_an_installation_that_fails_at_a_refused_host(claimed: Claimed, sandbox: FakeSandbox) -> None:
    def install(process: Process) -> int:
        if not process.reach("tracker.test"):
            process.emit("error: cannot fetch https://tracker.test/x\n", "stderr")
        return 1

    sandbox.programs["install"] = install

    build = run(claimed(), sandbox)

    assert verdict_of(build) == ("policy", "egress_blocked", "installation")
    assert "tracker.test" in (build.verdict or {})["message"]
    assert build.egress == [{"host": "tracker.test", "port": 443, "allowed": False, "count": 1}]
    assert_failed_for_good(build, sandbox)


def test_an_installation_that_fails_at_an_allowed_host(claimed: Claimed, sandbox: FakeSandbox) -> None:
    def install(process: Process) -> int:
        if process.reach("registry.test"):
            process.emit("error: cannot fetch https://registry.test/x\n", "stderr")
        return 1

    sandbox.programs["install"] = install

    build = run(claimed(), sandbox)

    assert verdict_of(build) == ("build", "install_failed", "installation")
    assert [entry["allowed"] for entry in build.egress] == [True]


def test_an_installation_that_succeeds_despite_a_refused_host(claimed: Claimed, sandbox: FakeSandbox) -> None:
    sandbox.programs["install"] = lambda process: 0 * process.reach("tracker.test")

    build = run(claimed(), sandbox)

    assert build.status == Status.COMPLETED
    assert [entry["allowed"] for entry in build.egress] == [False]


def test_a_build_phase_that_needs_the_network(claimed: Claimed, sandbox: FakeSandbox) -> None:
    def build_page(process: Process) -> int:
        if not process.reach("fonts.test"):
            process.emit("curl: (6) Could not resolve host: fonts.test\n", "stderr")
        return 1

    sandbox.programs["build"] = build_page

    build = run(claimed(), sandbox)

    assert verdict_of(build) == ("policy", "egress_blocked", "build")
    assert build.egress == []
    assert_failed_for_good(build, sandbox)
