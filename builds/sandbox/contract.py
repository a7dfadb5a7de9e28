"""The interface between the runner and a sandbox. Only the implementation knows Docker.

Each attempt has one workspace. Files go in before the first process starts, each phase runs in its own container on
the same files, and outputs come out as a tar stream after the last process has ended.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

# The build's folders in every container.
WORKSPACE = "/workspace"
APP_DIR = f"{WORKSPACE}/app"
TOOLBOX_DIR = f"{WORKSPACE}/.chef"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class SandboxError(Exception):
    """The engine failed. The user did not cause it, so the build goes back to the queue."""


class ImageMissingError(SandboxError):
    """The runtime's image is not prepared on this engine."""


class OutputMissingError(Exception):
    """An output path does not exist."""


class OutputUnsafeError(Exception):
    """An output path is a link or a special file, or goes through a link."""


@dataclass(frozen=True)
class Identity:
    """The attempt that containers belong to, stored in the labels that clean-up uses."""

    build: UUID
    fence: int


@dataclass(frozen=True)
class Limits:
    """What one container may use: bytes, CPUs, processes; `disk_bytes` limits the size of each file it writes."""

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
    """A shell script to run in a phase: where, with which environment, and whether it may reach registries."""

    phase: str
    script: str
    folder: str = ""  # relative to the project's folder
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)  # contains secrets: never in a message
    with_registries: bool = False


@dataclass(frozen=True)
class Registries:
    """Pairs of host and port that installations may reach, and the environment that points package managers there.

    `environment` may contain credentials; `hosts` never does. `proxy_variables` and `ca_variables` are extra variables
    from which package managers read their proxy and their file of certificate authorities.
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
    """How a command ended. `exit_code` is None if Chef stopped it."""

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
    """A folder or a file as a tar stream; members' names start with the last part of its path."""

    is_folder: bool
    stream: Iterator[bytes]


@dataclass
class Watch:
    """Callbacks for a running command: its output, the time left, and whether to stop it."""

    on_output: Callable[[str, bytes], None]
    seconds_left: Callable[[], float]
    must_stop: Callable[[], bool]


class Workspace(Protocol):
    """The files of one attempt and the containers that use them. Every call may raise SandboxError."""

    def put(self, files: Iterable[InputFile], tools: Mapping[str, bytes]) -> None:
        """Write the project's files and the read-only toolbox: the runtime's scripts by name, and Chef's own."""

    def run(self, command: Command, watch: Watch) -> Outcome:
        """Run until it ends, hits a limit or is stopped. The container is gone when this returns."""

    def take(self, path: str) -> contextlib.AbstractContextManager[Output]:
        """The output at `path`, for the block. Follows no link. Raises OutputMissingError, OutputUnsafeError."""

    def remove(self) -> None:
        """Remove every container and volume of the attempt. Idempotent."""


class Sandbox(Protocol):
    """An engine that builds can run on."""

    def image_id(self, tag: str) -> str:
        """The id (`sha256:...`) of a prepared runtime image. Raises ImageMissingError."""

    def open(self, identity: Identity, *, image: str, limits: Limits) -> Workspace:
        """A new, empty workspace on the image with that id."""

    def leftovers(self) -> list[Identity]:
        """The attempts of which this installation still has containers or volumes."""

    def remove(self, identity: Identity) -> None:
        """Remove everything that an attempt has left behind."""
