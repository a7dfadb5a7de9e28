"""What the runner asks of a sandbox. Knows no Docker: the implementation does, and nobody else.

One workspace belongs to one attempt. Files go in before the first process starts, each phase runs in a container of
its own over the same files, and outputs come out as a tar stream after the last process has died.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

# Where a build finds itself, in every container.
WORKSPACE = "/workspace"
APP_DIR = f"{WORKSPACE}/app"
TOOLBOX_DIR = f"{WORKSPACE}/.chef"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class SandboxError(Exception):
    """The engine failed us: not the user's fault, so the build goes back to the queue."""


class ImageMissingError(SandboxError):
    """The runtime's image is not prepared on this engine."""


class OutputMissingError(Exception):
    """There is nothing at an output path."""


class OutputUnsafeError(Exception):
    """What is at an output path is a link or a special file, or lies behind a link."""


@dataclass(frozen=True)
class Identity:
    """Whose containers these are; it becomes the labels that clean-up goes by."""

    build: UUID
    fence: int


@dataclass(frozen=True)
class Limits:
    """What one container may use: bytes, CPUs, processes; `disk_bytes` bounds any one file it writes."""

    memory_bytes: int
    cpus: float
    pids: int
    disk_bytes: int


@dataclass(frozen=True)
class InputFile:
    path: str  # safe, relative to the project's folder
    content: bytes
    executable: bool = False


@dataclass(frozen=True)
class Command:
    """A shell script to run in a phase: where, with which environment, and whether registries may be reached."""

    phase: str
    script: str
    folder: str = ""  # relative to the project's folder
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)  # holds secrets: never in a message
    with_registries: bool = False


@dataclass(frozen=True)
class Registries:
    """Pairs of host and port that installations may reach, and the environment that sends package managers there.

    `environment` may hold credentials; `hosts` never does. `proxy_variables` and `ca_variables` are further names by
    which package managers read their proxy, and their bundle of certificate authorities.
    """

    hosts: frozenset[tuple[str, int]]
    environment: dict[str, str] = field(repr=False)
    proxy_variables: tuple[str, ...] = ()
    ca_variables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Egress:
    host: str
    port: int
    allowed: bool
    count: int


@dataclass
class Outcome:
    """How a command ended. `exit_code` is None when the command was stopped by us."""

    exit_code: int | None = None
    out_of_memory: bool = False
    timed_out: bool = False
    processes_exhausted: bool = False
    stopped: bool = False
    peak_memory_bytes: int = 0
    cpu_seconds: float = 0.0
    egress: list[Egress] = field(default_factory=list)

    @property
    def succeeded(self) -> bool:
        return self.exit_code == 0 and not (
            self.timed_out or self.out_of_memory or self.processes_exhausted or self.stopped
        )


@dataclass(frozen=True)
class Output:
    """A folder or a file as a tar stream, whose members' names start with the last part of its path."""

    is_folder: bool
    stream: Iterator[bytes]


@dataclass
class Watch:
    """What a running command is watched by: its output's sink, the time left, and whether to stop."""

    on_output: Callable[[str, bytes], None]
    seconds_left: Callable[[], float]
    must_stop: Callable[[], bool]


class Workspace(Protocol):
    """The files of one attempt, and the containers that work on them. Every call may raise SandboxError."""

    def put(self, files: Iterable[InputFile], tools: Mapping[str, bytes]) -> None:
        """Lay the project's files and, read-only beside them, the toolbox: the runtime's scripts by name, and ours."""

    def run(self, command: Command, watch: Watch) -> Outcome:
        """Run to the end, to the limit, or until told to stop; the container is gone when this returns."""

    def take(self, path: str) -> contextlib.AbstractContextManager[Output]:
        """What is at `path`, readable in the block. Follows no link. Raises OutputMissingError, OutputUnsafeError."""

    def remove(self) -> None:
        """Remove every container and volume of the attempt. Harmless when repeated."""


class Sandbox(Protocol):
    """An engine that builds can run on."""

    def image_id(self, tag: str) -> str:
        """The id (`sha256:...`) of a prepared runtime image. Raises ImageMissingError."""

    def open(self, identity: Identity, *, image: str, limits: Limits) -> Workspace:
        """A fresh, empty workspace on the image with that id."""

    def leftovers(self) -> list[Identity]:
        """Whose containers and volumes of this installation are still there."""

    def remove(self, identity: Identity) -> None:
        """Remove all that one attempt has left."""
