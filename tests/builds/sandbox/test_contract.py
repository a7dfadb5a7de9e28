"""The sandbox contract, for the fake and Docker alike. Docker runs scripts, the fake runs programs."""

import gc
import inspect
import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from pytest_django import Settings

from builds.runtimes.registries import discover
from builds.sandbox.contract import (
    Command,
    Identity,
    ImageMissingError,
    InputFile,
    Limits,
    Outcome,
    OutputMissingError,
    OutputUnsafeError,
    Sandbox,
    SandboxError,
    Watch,
    Workspace,
)
from builds.sandbox.docker_sandbox import DockerSandbox, DockerWorkspace
from tests.builds.sandbox.fake import FakeSandbox, FakeWorkspace, Process, Program, not_found, says, writes

pytestmark = pytest.mark.once

IMAGE = "chef-runtime/python:3.11"
NO_IMAGE = f"sha256:{'0' * 64}"
LIMITS = Limits(memory_bytes=64 * 1024**2, cpus=1, pids=32, disk_bytes=64 * 1024**2)

# A fork bomb that stays at the limit and keeps working.
FORKS = """exec python3 -c '
import os, time
while True:
    try:
        if not os.fork():
            time.sleep(60)
    except OSError:
        sum(range(100_000))
'"""


@dataclass
class Ran:
    """A finished command: its outcome, and its output by stream."""

    outcome: Outcome
    output: dict[str, bytes]


@dataclass
class Bench:
    """A sandbox's workspace with helpers for tests."""

    sandbox: Sandbox
    programs: dict[str, Program]
    identity: Identity = field(default_factory=lambda: Identity(uuid4(), 1))

    def __post_init__(self) -> None:
        self.workspace = self.open(self.identity)
        self.workspace.put([], {})

    def open(self, identity: Identity) -> Workspace:
        return self.sandbox.open(identity, image=self.sandbox.image_id(IMAGE), limits=LIMITS)

    def run(
        self,
        script: str,
        program: Program,
        *,
        on_output: Callable[[bytes], None] = lambda data: None,
        seconds_left: Callable[[], float] = lambda: 60,
        must_stop: Callable[[], bool] = lambda: False,
        **options: Any,
    ) -> Ran:
        """Run a script, or the fake's equivalent program, in the build phase."""
        self.programs[script] = program
        output = {"stdout": b"", "stderr": b""}

        def take(stream: str, data: bytes) -> None:
            output[stream] += data
            on_output(data)

        watch = Watch(take, seconds_left, must_stop)
        return Ran(self.workspace.run(Command("build", script, **options), watch), output)

    def members(self, path: str) -> dict[str, tuple[bytes, bytes]]:
        """An output's members by name: type and content."""
        with self.workspace.take(path) as output, tarfile.open(fileobj=io.BytesIO(b"".join(output.stream))) as archive:
            files = {member.name: archive.extractfile(member) if member.isreg() else None for member in archive}
            return {name: (archive.getmember(name).type, file.read() if file else b"") for name, file in files.items()}


@pytest.fixture
def programs() -> dict[str, Program]:
    """The fake's program for each script."""
    return {}


# The SDK leaves the sockets of attached streams to the garbage collector.
ON_DOCKER = (pytest.mark.docker, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"))


@pytest.fixture(params=["fake", pytest.param("docker", marks=ON_DOCKER)])
def sandbox(
    request: pytest.FixtureRequest, settings: Settings, short_folder: Path, programs: dict[str, Program]
) -> Iterator[Sandbox]:
    # Others may use the engine at the same time, so this test identifies its objects by label.
    settings.INSTALLATION = f"contract-{uuid4().hex[:12]}"
    settings.BUILD_DIR = short_folder / "contract"
    made: Sandbox = DockerSandbox(discover) if request.param == "docker" else in_memory(programs)
    yield made
    for identity in made.leftovers():
        made.remove(identity)
    assert made.leftovers() == []
    if request.param == "docker":
        gc.collect()  # here, where the warnings are expected, and not in a later test


def in_memory(programs: dict[str, Program]) -> FakeSandbox:
    sandbox = FakeSandbox(images={IMAGE: f"sha256:{'1' * 64}"})
    sandbox.programs = programs
    return sandbox


@pytest.fixture
def bench(sandbox: Sandbox, programs: dict[str, Program]) -> Bench:
    return Bench(sandbox, programs)


def contents(process: Process, *paths: str) -> None:
    for path in paths:
        process.emit(process.read(path))


# --- The calls ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contract", "implementation"),
    [
        (Sandbox, FakeSandbox),
        (Sandbox, DockerSandbox),
        (Workspace, FakeWorkspace),
        (Workspace, DockerWorkspace),
    ],
)
def test_every_method_has_the_contract_s_signature(contract: type, implementation: type) -> None:
    calls = {name: call for name, call in vars(contract).items() if inspect.isfunction(call) and name[0] != "_"}

    parameters = {name: inspect.signature(getattr(implementation, name)).parameters for name in calls}

    assert calls
    assert parameters == {name: inspect.signature(call).parameters for name, call in calls.items()}


def test_an_image_is_known_by_the_id_behind_its_tag(sandbox: Sandbox) -> None:
    image = sandbox.image_id(IMAGE)

    assert image.startswith("sha256:")
    assert len(image) == len(NO_IMAGE)


def test_an_unprepared_image_is_missing(sandbox: Sandbox) -> None:
    with pytest.raises(ImageMissingError, match="chef-runtime/none:1"):
        sandbox.image_id("chef-runtime/none:1")


def test_a_workspace_on_a_removed_image_is_a_sandbox_error(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError):
        sandbox.open(Identity(uuid4(), 1), image=NO_IMAGE, limits=LIMITS)


# --- What a command finds ----------------------------------------------------------------------------------------


def test_a_command_finds_the_project_s_files(bench: Bench) -> None:
    bench.workspace.put(
        [InputFile("a.txt", b"top\n"), InputFile("src/deep/b.txt", b"deep\n"), InputFile("run.sh", b"", True)], {}
    )

    def program(process: Process) -> int:
        contents(process, "a.txt", "src/deep/b.txt")
        return 0 if process.is_executable("run.sh") and not process.is_executable("a.txt") else 1

    ran = bench.run("cat a.txt src/deep/b.txt; test -x run.sh && ! test -x a.txt", program)

    assert ran.output["stdout"] == b"top\ndeep\n"
    assert ran.outcome.succeeded


def test_a_command_runs_in_its_folder(bench: Bench) -> None:
    bench.workspace.put([InputFile("name", b"top"), InputFile("apps/web/name", b"web")], {})

    ran = bench.run("cat name", lambda process: contents(process, "name"), folder="apps/web")

    assert ran.output["stdout"] == b"web"


def test_each_command_has_only_its_own_environment(bench: Bench) -> None:
    def program(process: Process) -> None:
        process.emit(f"{process.command.environment.get('GREETING', 'nothing')}\n")

    first = bench.run("echo ${GREETING:-nothing}", program, environment={"GREETING": "good day"})
    second = bench.run("echo ${GREETING:-nothing}", program)

    assert (first.output["stdout"], second.output["stdout"]) == (b"good day\n", b"nothing\n")


def test_a_command_finds_the_files_of_the_previous_one(bench: Bench) -> None:
    bench.run("mkdir made; printf kept > made/file", writes({"made/file": b"kept"}))

    ran = bench.run("cat made/file", lambda process: contents(process, "made/file"))

    assert ran.output["stdout"] == b"kept"


def test_workspaces_share_no_files(bench: Bench) -> None:
    other = bench.open(Identity(uuid4(), 1))
    other.put([InputFile("theirs", b"")], {})

    ran = bench.run("test -e theirs", lambda process: 0 if process.has("theirs") else 1)

    assert ran.outcome.exit_code == 1


# --- What a command prints, and how it ends ----------------------------------------------------------------------


def test_output_arrives_unchanged_and_in_order_on_each_stream(bench: Bench) -> None:
    def program(process: Process) -> None:
        for number in range(1, 101):
            process.emit(f"out {number}\n")
            process.emit(f"err {number}\n", "stderr")
        process.emit(b"\xff\x00\x1b[1m")

    ran = bench.run("for i in $(seq 100); do echo out $i; echo err $i >&2; done; printf '\\377\\000\\033[1m'", program)

    numbers = range(1, 101)
    assert ran.output["stdout"] == "".join(f"out {number}\n" for number in numbers).encode() + b"\xff\x00\x1b[1m"
    assert ran.output["stderr"] == "".join(f"err {number}\n" for number in numbers).encode()


def test_output_arrives_while_the_command_runs(bench: Bench) -> None:
    def program(process: Process) -> None:
        process.emit("ready")
        process.hang()

    seen: list[bytes] = []
    ran = bench.run("printf ready; exec sleep 60", program, on_output=seen.append, must_stop=lambda: bool(seen))

    assert (ran.outcome.stopped, seen) == (True, [b"ready"])


def test_a_command_ends_with_its_exit_code(bench: Bench) -> None:
    outcomes = [bench.run(f"exit {code}", says(exit_code=code)).outcome for code in (0, 3, 137)]

    assert [(outcome.exit_code, outcome.succeeded) for outcome in outcomes] == [(0, True), (3, False), (137, False)]
    assert not any(outcome.timed_out or outcome.stopped or outcome.out_of_memory for outcome in outcomes)


def test_a_missing_command_exits_with_127_and_is_named(bench: Bench) -> None:
    ran = bench.run("no-such-tool", not_found)

    assert ran.outcome.exit_code == 127
    assert b"no-such-tool: not found" in ran.output["stderr"]


def test_a_command_is_stopped_at_its_time_limit(bench: Bench) -> None:
    def program(process: Process) -> None:
        process.emit("still here\n")
        process.hang()

    seen: list[bytes] = []
    ran = bench.run(
        "trap '' TERM; echo still here; while :; do sleep 1; done",
        program,
        on_output=seen.append,
        seconds_left=lambda: 0 if seen else 60,
    )

    assert ran.outcome.timed_out
    assert (ran.outcome.exit_code, ran.outcome.stopped, ran.outcome.succeeded) == (None, False, False)
    assert ran.output["stdout"] == b"still here\n"


def test_a_command_is_stopped_on_request(bench: Bench) -> None:
    ran = bench.run("exec sleep 60", lambda process: process.hang(), must_stop=lambda: True)

    assert ran.outcome.stopped
    assert (ran.outcome.exit_code, ran.outcome.timed_out, ran.outcome.succeeded) == (None, False, False)


def test_an_error_of_the_output_callback_ends_the_command_and_is_raised(bench: Bench) -> None:
    def refuse(data: bytes) -> None:
        raise LookupError("no place for it")

    def program(process: Process) -> None:
        process.emit("ready")
        process.hang()

    with pytest.raises(LookupError, match="no place for it"):
        bench.run("printf ready; exec sleep 60", program, on_output=refuse)


def test_running_out_of_memory_is_reported(bench: Bench) -> None:
    ran = bench.run("exec tail /dev/zero", lambda process: process.allocate(2 * LIMITS.memory_bytes))

    assert ran.outcome.out_of_memory
    assert (ran.outcome.exit_code, ran.outcome.succeeded) == (137, False)


def test_running_out_of_processes_ends_the_command_and_is_reported(bench: Bench) -> None:
    def program(process: Process) -> None:
        process.allocate(1024**2)
        process.use_cpu(0.5)
        process.fork(1_000)

    ran = bench.run(FORKS, program)

    assert ran.outcome.processes_exhausted
    assert (ran.outcome.exit_code, ran.outcome.succeeded) == (None, False)
    assert 0 < ran.outcome.peak_memory_bytes <= LIMITS.memory_bytes
    assert ran.outcome.cpu_seconds > 0


@pytest.mark.parametrize("with_registries", [True, False])
def test_a_refused_host_is_reported_if_registries_may_be_reached(bench: Bench, with_registries: bool) -> None:
    script = "python3 -c 'import urllib.request as r; r.urlopen(\"http://refused.example/\")' 2>/dev/null"

    ran = bench.run(
        script, lambda process: 0 if process.reach("refused.example", 80) else 1, with_registries=with_registries
    )

    assert ran.outcome.exit_code == 1
    reported = [(each.host, each.port, each.allowed, each.count) for each in ran.outcome.egress]
    assert reported == ([("refused.example", 80, False, 1)] if with_registries else [])


# --- Outputs -----------------------------------------------------------------------------------------------------


def test_a_folder_is_read_under_its_last_name_with_its_whole_content(bench: Bench) -> None:
    def program(process: Process) -> None:
        writes({"apps/web/dist/index.html": b"page", "apps/web/dist/js/main.js": b"code", "other": b""})(process)
        process.make_link("apps/web/dist/link", "/etc/passwd")

    bench.run(
        "mkdir -p apps/web/dist/js; cd apps/web/dist; printf page > index.html; printf code > js/main.js;"
        "ln -s /etc/passwd link; touch ../../../other",
        program,
    )

    with bench.workspace.take("apps/web/dist") as output:
        is_folder = output.is_folder
    members = bench.members("apps/web/dist")

    assert is_folder
    assert {name.rstrip("/"): member for name, member in members.items()} == {
        "dist": (tarfile.DIRTYPE, b""),
        "dist/index.html": (tarfile.REGTYPE, b"page"),
        "dist/js": (tarfile.DIRTYPE, b""),
        "dist/js/main.js": (tarfile.REGTYPE, b"code"),
        "dist/link": (tarfile.SYMTYPE, b""),
    }


def test_a_file_is_read_under_its_last_name(bench: Bench) -> None:
    bench.run("mkdir out; printf code > out/main.js", writes({"out/main.js": b"code"}))

    with bench.workspace.take("out/main.js") as output:
        is_folder = output.is_folder

    assert not is_folder
    assert bench.members("out/main.js") == {"main.js": (tarfile.REGTYPE, b"code")}


def test_an_empty_folder_is_read_as_a_folder(bench: Bench) -> None:
    bench.run("mkdir dist", lambda process: process.make_folder("dist"))

    assert bench.members("dist") == {"dist": (tarfile.DIRTYPE, b"")}


def test_the_project_s_folder_is_read_as_app(bench: Bench) -> None:
    bench.workspace.put([InputFile("index.html", b"page")], {})

    taken = [bench.members(path) for path in (".", "")]

    assert taken == 2 * [{"app": (tarfile.DIRTYPE, b""), "app/index.html": (tarfile.REGTYPE, b"page")}]


def test_an_absent_output_is_missing(bench: Bench) -> None:
    bench.workspace.put([InputFile("file", b""), InputFile("folder/file", b"")], {})

    for path in ("none", "none/below", "file/below", "folder/none"):
        with pytest.raises(OutputMissingError), bench.workspace.take(path):
            pass


def test_an_output_that_is_a_link_or_special_or_reached_by_a_link_is_unsafe(bench: Bench) -> None:
    bench.workspace.put([InputFile("folder/file", b"")], {})

    def program(process: Process) -> None:
        process.make_link("link", "folder")
        process.make_link("folder/link", "/etc")
        process.make_pipe("pipe")

    bench.run("ln -s folder link; ln -s /etc folder/link; mkfifo pipe", program)

    for path in ("link", "link/file", "folder/link", "folder/link/hosts", "pipe"):
        with pytest.raises(OutputUnsafeError), bench.workspace.take(path):
            pass


# --- What is left ------------------------------------------------------------------------------------------------


def test_a_workspace_is_listed_until_it_is_removed_and_removal_is_idempotent(bench: Bench) -> None:
    bench.run("exit 3", says(exit_code=3))
    before = bench.sandbox.leftovers()

    bench.workspace.remove()
    bench.workspace.remove()

    assert before == [bench.identity]
    assert bench.sandbox.leftovers() == []


def test_a_sandbox_removes_only_the_leftovers_of_one_attempt(bench: Bench) -> None:
    build = UUID(int=0)  # the first in the list
    for fence in (1, 2):
        bench.open(Identity(build, fence))
    before = bench.sandbox.leftovers()

    bench.sandbox.remove(Identity(build, 1))
    bench.sandbox.remove(Identity(build, 1))
    bench.sandbox.remove(Identity(uuid4(), 1))

    assert before == [Identity(build, 1), Identity(build, 2), bench.identity]
    assert bench.sandbox.leftovers() == [Identity(build, 2), bench.identity]


def test_removing_the_workspace_of_a_running_command_is_a_sandbox_error(bench: Bench) -> None:
    def program(process: Process) -> None:
        process.emit("ready")
        process.hang()

    with pytest.raises(SandboxError):
        bench.run("printf ready; exec sleep 60", program, on_output=lambda data: bench.sandbox.remove(bench.identity))

    assert bench.sandbox.leftovers() == []
