"""Successful builds, and what is stored about them. Only the sandbox is a fake."""

import hashlib
import json
from typing import Any

import pytest
from pytest_django import Settings

from builds.models import BuildEvent
from builds.runtimes.static import STATIC
from chef.jobs.models import Status
from projects.environment import Secret
from projects.files.paths import NewFile
from tests.builds.runner.attempts import (
    IMAGE,
    PAGE,
    Claimed,
    events,
    log,
    outcomes,
    phases,
    run,
    stored,
)
from tests.builds.sandbox.fake import FakeSandbox, Process, says, writes

MIB = 1024**2

pytestmark = pytest.mark.usefixtures("log_at_the_end_of_phases")


def test_a_successful_build_completes_phase_by_phase(claimed: Claimed, sandbox: FakeSandbox) -> None:
    build = run(claimed(), sandbox)

    assert (build.status, build.phase, build.progress, build.faults) == (Status.COMPLETED, "cleanup", 100, 0)
    assert build.finished_at
    assert (build.verdict, build.verdict_class) == (None, "")
    assert outcomes(build) == ["completed"]
    assert phases(build) == dict.fromkeys(("preparation", "installation", "build", "artifacts", "cleanup"), "completed")
    assert events(build) == [
        *("queued", "running"),
        *("preparation", "installation", "build", "artifacts", "cleanup"),
        "completed",
    ]


def test_each_phase_reports_progress(claimed: Claimed, sandbox: FakeSandbox) -> None:
    build = run(claimed(), sandbox)

    rows = BuildEvent.objects.filter(build=build, kind="phase").values_list("fence", "data__phase", "data__progress")
    assert list(rows) == [
        (1, "preparation", 10),
        (1, "installation", 30),
        (1, "build", 60),
        (1, "artifacts", 90),
        (1, "cleanup", 100),
    ]


def test_exit_codes_of_commands_are_stored(claimed: Claimed, sandbox: FakeSandbox) -> None:
    build = run(claimed(), sandbox)

    codes = build.attempts.get().phases.values_list("name", "exit_code")
    assert [name for name, code in codes if code == 0] == ["installation", "build"]
    assert [name for name, code in codes if code is None] == ["preparation", "artifacts", "cleanup"]


def test_the_plan_and_the_image_are_stored(claimed: Claimed, sandbox: FakeSandbox, settings: Settings) -> None:
    build = run(claimed(strategy={"timeout": 5000, "memory": 64 * MIB, "cpus": 0.5}), sandbox)

    assert (build.runtime, build.image) == ("static", IMAGE)
    assert build.plan
    assert build.plan["reasons"]
    expected: dict[str, Any] = {
        "runtime": "static",
        "version": "12",
        "installCommand": "install",
        "buildCommand": "build",
    }
    expected |= {"outputs": ["dist"], "timeout": 5000, "memory": 64 * MIB, "cpus": 0.5}
    assert build.plan | expected == build.plan


def test_outputs_become_artifacts(claimed: Claimed, sandbox: FakeSandbox) -> None:
    sandbox.programs["build"] = writes({"dist/index.html": PAGE, "dist/js/main.js": b"code", "other/file": b"no"})

    build = run(claimed(), sandbox)

    columns = ("attempt", "name", "size", "sha256", "content_type")
    page, code = (hashlib.sha256(content).hexdigest() for content in (PAGE, b"code"))
    assert list(build.artifacts.values_list(*columns)) == [
        (1, "dist/index.html", len(PAGE), page, "text/html"),
        (1, "dist/js/main.js", 4, code, "text/javascript"),
    ]
    contents = stored()
    assert [contents[artifact.storage_key] for artifact in build.artifacts.all()] == [PAGE, b"code"]
    assert len(contents) == 2
    assert log(build, "system").endswith("Artifacts: 2 files, 18 bytes.\n")


def test_unusable_files_of_an_output_are_left_out_with_a_reason(claimed: Claimed, sandbox: FakeSandbox) -> None:
    def program(process: Process) -> None:
        process.write("dist/index.html", PAGE)
        process.make_link("dist/link", "/etc/passwd")
        process.write("dist/back\\slash", b"")

    sandbox.programs["build"] = program

    build = run(claimed(), sandbox)

    assert [artifact.name for artifact in build.artifacts.all()] == ["dist/index.html"]
    assert "not kept: 'dist/link': not a regular file\n" in log(build, "system")
    assert "not kept: 'dist/back\\\\slash': the name contains" in log(build, "system")


def test_usage_and_connections_are_stored(claimed: Claimed, sandbox: FakeSandbox) -> None:
    def install(process: Process) -> None:
        process.allocate(30 * MIB)
        process.use_cpu(1.25)
        process.reach("registry.test")
        process.reach("tracker.test", 80)

    def build_page(process: Process) -> None:
        process.allocate(20 * MIB)
        process.use_cpu(0.5)
        process.write("dist/index.html", PAGE)

    sandbox.programs |= {"install": install, "build": build_page}

    build = run(claimed(), sandbox)

    assert build.usage == {"peakMemoryBytes": 30 * MIB, "cpuSeconds": 1.75, "diskBytes": len(PAGE)}
    assert build.egress == [
        {"host": "registry.test", "port": 443, "allowed": True, "count": 1},
        {"host": "tracker.test", "port": 80, "allowed": False, "count": 1},
    ]


def test_output_of_commands_is_stored_by_phase_and_stream(claimed: Claimed, sandbox: FakeSandbox) -> None:
    def build_page(process: Process) -> None:
        says("one\n", ("stderr", "two\n"), "three")(process)
        process.write("dist/index.html", PAGE)

    sandbox.programs["build"] = build_page

    build = run(claimed(), sandbox)

    printed = build.log_chunks.exclude(stream="system").values_list("phase", "stream", "text")
    assert list(printed) == [
        ("installation", "stdout", "added 3 packages\n"),
        ("build", "stdout", "one\n"),
        ("build", "stderr", "two\n"),
        ("build", "stdout", "three"),
    ]
    assert [line for line in log(build, "system").splitlines() if line[0] == "$"] == ["$ install", "$ build"]
    assert build.log_bytes == len("added 3 packages\none\ntwo\nthree")


def test_only_installation_can_reach_registries(claimed: Claimed, sandbox: FakeSandbox) -> None:
    run(claimed(), sandbox)

    assert [(command.phase, command.with_registries) for command in sandbox.commands] == [
        ("installation", True),
        ("build", False),
    ]


def test_commands_run_in_the_project_s_folder_and_find_its_files(claimed: Claimed, sandbox: FakeSandbox) -> None:
    def build_page(process: Process) -> None:
        process.emit(process.read("index.html"))
        process.write("dist/index.html", PAGE)

    sandbox.programs["build"] = build_page
    files = [NewFile("site/index.html", b"source\n"), NewFile("LICENSE", b"")]

    build = run(claimed(files=files, strategy={"rootDir": "site"}), sandbox)

    assert build.status == Status.COMPLETED
    assert [command.folder for command in sandbox.commands] == ["site", "site"]
    assert "source\n" in log(build, "stdout")
    assert build.artifacts.get().name == "dist/index.html"


def test_files_added_by_the_plan_exist_before_the_first_command(claimed: Claimed, sandbox: FakeSandbox) -> None:
    sandbox.images = {"chef-runtime/node:22": IMAGE}
    sandbox.programs["install"] = lambda process: process.emit(process.read("package.json"))
    files = [NewFile("index.js", b""), NewFile("package.json", b'{"name": "mine"}')]

    build = run(claimed(files=files, dependencies={"left-pad": "^1.3.0"}, strategy={"runtime": "node"}), sandbox)

    assert build.status == Status.COMPLETED
    printed = json.loads(log(build, "stdout").removesuffix("built in 1 s\n"))
    assert (printed["name"], printed["dependencies"]) == ("mine", {"left-pad": "^1.3.0"})


def test_each_phase_has_its_environment_and_secrets_stay_out_of_the_log(claimed: Claimed, sandbox: FakeSandbox) -> None:
    def build_page(process: Process) -> None:
        process.emit(f"token is {process.command.environment['TOKEN']}\n")
        process.write("dist/index.html", PAGE)

    sandbox.programs["build"] = build_page

    build = run(claimed(env={"MODE": "test"}, secrets={"TOKEN": Secret("s3cret-value-of-token")}), sandbox)

    assert [dict(command.environment) for command in sandbox.commands] == [
        {**STATIC.environment, "MODE": "test"},
        {**STATIC.environment, "MODE": "test", "TOKEN": "s3cret-value-of-token"},
    ]
    assert "token is " in log(build, "stdout")
    assert "s3cret" not in log(build, "stdout") + log(build, "system")


def test_phases_without_a_command_are_skipped(claimed: Claimed, sandbox: FakeSandbox) -> None:
    build = run(claimed(strategy={"installCommand": "", "buildCommand": "", "outputs": []}), sandbox)

    assert build.status == Status.COMPLETED
    assert {name: status for name, status in phases(build).items() if status != "completed"} == {
        "installation": "skipped",
        "build": "skipped",
    }
    assert sandbox.commands == []
    assert [artifact.name for artifact in build.artifacts.all()] == ["index.html"]


def test_a_completed_build_leaves_nothing_in_the_sandbox(claimed: Claimed, sandbox: FakeSandbox) -> None:
    run(claimed(), sandbox)

    assert sandbox.leftovers() == []
