"""How a command ended, with real containers: decided by the worker's clock, not by the exit code."""

import gc
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from builds.runtimes.catalogue import runtime_tag
from builds.runtimes.registries import discover
from builds.sandbox import container, execution
from builds.sandbox.contract import WORKSPACE, Command, Identity, InputFile, Limits, Outcome, Watch, Workspace
from builds.sandbox.docker_sandbox import DockerSandbox

# The SDK leaves streams' sockets to the garbage collector.
pytestmark = [
    pytest.mark.docker,
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
LIMITS = Limits(memory_bytes=256 * 2**20, cpus=1, pids=64, disk_bytes=2**30)
Run = Callable[..., Outcome]


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    sandbox = DockerSandbox(discover)
    image = sandbox.image_id(runtime_tag("static", ""))
    workspace = sandbox.open(Identity(uuid.uuid4(), 1), image=image, limits=LIMITS)
    try:
        workspace.put([InputFile("index.html", b"hello")], {})
        yield workspace
    finally:
        workspace.remove()
        gc.collect()  # collect what the SDK left open here, and not in another test


@pytest.fixture
def output() -> list[str]:
    return []


@pytest.fixture
def run(workspace: Workspace, output: list[str]) -> Run:
    def run(script: str, *, seconds: float = 30) -> Outcome:
        deadline = time.monotonic() + seconds
        watch = Watch(
            on_output=lambda stream, data: output.append(data.decode()),
            seconds_left=lambda: deadline - time.monotonic(),
            must_stop=lambda: False,
        )
        return workspace.run(Command("build", script), watch)

    return run


@pytest.mark.parametrize("code", [0, 64, 70, 124, 137])
def test_exit_code_is_the_command_s_own(run: Run, code: int) -> None:
    outcome = run(f"exit {code}")

    assert (outcome.exit_code, outcome.timed_out, outcome.succeeded) == (code, False, code == 0)


def test_command_is_stopped_at_its_time_limit(run: Run) -> None:
    outcome = run("sleep 30", seconds=0.5)

    assert (outcome.exit_code, outcome.timed_out) == (None, True)


def test_worker_that_missed_the_deadline_reports_a_time_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "STOP_POLL_SECONDS", 60)
    monkeypatch.setattr(container, "DEADLINE_SLACK_SECONDS", 0.3)

    outcome = run("sleep 30", seconds=0.2)

    assert (outcome.exit_code, outcome.timed_out) == (None, True)


def test_success_counts_even_at_the_last_moment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "STOP_POLL_SECONDS", 60)

    outcome = run("sleep 0.4", seconds=0.2)

    assert outcome.succeeded


def test_planted_programs_do_not_start_the_build(run: Run, output: list[str]) -> None:
    plant = f"""
        for folder in {WORKSPACE}/tools/node_modules/.bin {WORKSPACE}/tools/python/bin; do
            mkdir -p $folder
            for name in sh timeout init python3 node; do
                printf '#!/bin/sh\\necho PLANTED\\nexec /bin/sh "$@"\\n' >$folder/$name
                chmod +x $folder/$name
            done
        done"""

    assert run(plant).succeeded
    assert run("echo built").succeeded
    assert output == ["built\n"]


@pytest.mark.parametrize(
    "change",
    ["echo x >init", "echo x >other", "rm -f init", "mv init ../tmp", "ln -sf /bin/sh init", "chmod u+w init"],
)
def test_first_process_cannot_be_replaced(run: Run, change: str) -> None:
    assert not run(f"cd {WORKSPACE}/.chef && {change}").succeeded
    assert not run(f"cd {WORKSPACE} && mv .chef moved").succeeded
    assert run(f'test "$(stat -c %u:%a {WORKSPACE}/.chef/init)" = 0:555').succeeded
