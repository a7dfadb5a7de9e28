"""A fake sandbox in memory: no engine, no container, nothing on disk.

It runs no shell: for each script a test registers a program, a function that receives its Process. `test_contract`
checks the fake and Docker against the same contract.
"""

import contextlib
import io
import tarfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Never

from builds.sandbox.contract import (
    Command,
    Egress,
    Identity,
    ImageMissingError,
    InputFile,
    Limits,
    Outcome,
    Output,
    OutputMissingError,
    OutputUnsafeError,
    SandboxError,
    Watch,
    Workspace,
)

POLL_SECONDS = 0.005
CHUNK_BYTES = 4 * tarfile.BLOCKSIZE
KILLED = 137  # a shell's exit code for a process killed by the kernel


@dataclass(frozen=True)
class Node:
    """A file, a folder, a link or a pipe, by its type in a tar archive."""

    kind: bytes
    content: bytes = b""
    target: str = ""
    executable: bool = False

    @property
    def is_folder(self) -> bool:
        return self.kind == tarfile.DIRTYPE

    @property
    def is_unsafe(self) -> bool:
        return self.kind not in (tarfile.DIRTYPE, tarfile.REGTYPE)


Files = dict[str, Node]  # by paths in the project's folder, which itself is ""


def place(files: Files, path: str, node: Node) -> None:
    """Add a node at a path, with missing parent folders."""
    parts = path.split("/") if path else []
    for depth in range(len(parts)):
        files.setdefault("/".join(parts[:depth]), Node(tarfile.DIRTYPE))
    files[path] = node


class _EndedError(BaseException):
    """The process was killed. Not an Exception, so that programs do not catch it."""


class Process:
    """A program's view of its container: files, streams, and everything that can end it early.

    Paths are relative to the command's folder. A program returns its exit code; None is 0.
    """

    def __init__(self, sandbox: "FakeSandbox", workspace: "FakeWorkspace", command: Command, watch: Watch) -> None:
        self._sandbox = sandbox
        self._workspace = workspace
        self._watch = watch
        self._processes = 1
        self._memory_bytes = 0
        self.command = command
        self.outcome = Outcome()

    # --- Files and streams ---------------------------------------------------------------------------------------

    def emit(self, text: str | bytes, stream: str = "stdout") -> None:
        self._watch.on_output(stream, text.encode() if isinstance(text, str) else text)

    def read(self, path: str) -> bytes:
        return self._workspace.files[self._path(path)].content

    def has(self, path: str) -> bool:
        return self._path(path) in self._workspace.files

    def is_executable(self, path: str) -> bool:
        return self._workspace.files[self._path(path)].executable

    def write(self, path: str, content: bytes = b"") -> None:
        self._place(path, Node(tarfile.REGTYPE, content))

    def make_folder(self, path: str) -> None:
        self._place(path, Node(tarfile.DIRTYPE))

    def make_link(self, path: str, target: str) -> None:
        self._place(path, Node(tarfile.SYMTYPE, target=target))

    def make_pipe(self, path: str) -> None:
        self._place(path, Node(tarfile.FIFOTYPE))

    def _place(self, path: str, node: Node) -> None:
        place(self._workspace.files, self._path(path), node)

    def _path(self, path: str) -> str:
        return "/".join(part for part in (self.command.folder, path) if part)

    # --- Measurements --------------------------------------------------------------------------------------------

    def use_cpu(self, seconds: float) -> None:
        self.outcome.cpu_seconds += seconds

    def allocate(self, size: int) -> None:
        """Use this many more bytes of memory; beyond the limit, the process is killed."""
        self._memory_bytes += size
        limit = self._workspace.limits.memory_bytes
        self.outcome.peak_memory_bytes = min(self._memory_bytes, limit)
        if self._memory_bytes > limit:
            self._end(exit_code=KILLED, out_of_memory=True)

    def fork(self, times: int) -> None:
        """Start this many more processes; at the limit, the container is killed."""
        self._processes += times
        if self._processes >= self._workspace.limits.pids:
            self._end(processes_exhausted=True)

    def reach(self, host: str, port: int = 443) -> bool:
        """Whether a connection to a host succeeds; it is recorded if registries may be reached."""
        if not self.command.with_registries:
            return False
        is_allowed = host in self._sandbox.registries
        self.outcome.egress.append(Egress(host, port, is_allowed, 1))
        return is_allowed

    # --- Waiting and ending --------------------------------------------------------------------------------------

    @property
    def seconds_left(self) -> float:
        return self._watch.seconds_left()

    def hang(self) -> Never:
        """Sleep until the time limit, until the worker stops the command, or until the workspace is removed."""
        while self._workspace.is_there:
            if self._watch.must_stop():
                self._end(stopped=True)
            if self.seconds_left <= 0:
                self._end(timed_out=True)
            time.sleep(POLL_SECONDS)
        raise SandboxError("the container was removed while its command ran")

    def _end(self, **how: int) -> Never:
        for name, value in how.items():
            setattr(self.outcome, name, value)
        raise _EndedError


Program = Callable[[Process], int | None]


def says(*pieces: str | tuple[str, str], exit_code: int = 0) -> Program:
    """A program that prints: each piece is a text for stdout, or (stream, text)."""

    def program(process: Process) -> int:
        for piece in pieces:
            stream, text = ("stdout", piece) if isinstance(piece, str) else piece
            process.emit(text, stream)
        return exit_code

    return program


def writes(files: Mapping[str, bytes]) -> Program:
    """A program that writes files, given by path."""

    def program(process: Process) -> None:
        for path, content in files.items():
            process.write(path, content)

    return program


def not_found(process: Process) -> int:
    """The program for scripts without a registered one."""
    process.emit(f"/bin/sh: 1: {process.command.script}: not found\n", "stderr")
    return 127


class FakeSandbox:
    """See builds.sandbox.contract.Sandbox.

    `images` are ids by tag, `programs` are functions by script, `registries` are the hosts that an installation may
    reach. `before` has functions by method name, called as the method begins: they raise the engine's errors or
    simulate events. The name `stream` means the middle of an output's stream. `commands` lists the commands run.
    """

    def __init__(
        self,
        *,
        images: Mapping[str, str],
        programs: Mapping[str, Program] | None = None,
        registries: Collection[str] = (),
    ) -> None:
        self.images = images
        self.programs: dict[str, Program] = dict(programs or {})
        self.registries = registries
        self.before: dict[str, Callable[[], object]] = {}
        self.commands: list[Command] = []
        self._volumes: dict[Identity, Files] = {}

    def image_id(self, tag: str) -> str:
        self.begin("image_id")
        try:
            return self.images[tag]
        except KeyError:
            raise ImageMissingError(f"the image {tag} is not on this engine") from None

    def open(self, identity: Identity, *, image: str, limits: Limits) -> Workspace:
        self.begin("open")
        if image not in self.images.values():
            raise SandboxError(f"no such image: {image}")
        self._volumes[identity] = {}
        return FakeWorkspace(self, self._volumes, identity, limits)

    def leftovers(self) -> list[Identity]:
        self.begin("leftovers")
        return sorted(self._volumes, key=lambda identity: (str(identity.build), identity.fence))

    def remove(self, identity: Identity) -> None:
        self.begin("remove")
        self._volumes.pop(identity, None)

    def begin(self, call: str) -> None:
        if happens := self.before.get(call):
            happens()


class FakeWorkspace:
    """See builds.sandbox.contract.Workspace."""

    def __init__(
        self, sandbox: FakeSandbox, volumes: Mapping[Identity, Files], identity: Identity, limits: Limits
    ) -> None:
        self._sandbox = sandbox
        self._volumes = volumes
        self._identity = identity
        self.limits = limits

    @property
    def is_there(self) -> bool:
        return self._identity in self._volumes

    @property
    def files(self) -> Files:
        if not self.is_there:
            raise SandboxError("the workspace was removed")
        return self._volumes[self._identity]

    def put(self, files: Iterable[InputFile], tools: Mapping[str, bytes]) -> None:
        self._sandbox.begin("put")
        place(self.files, "", Node(tarfile.DIRTYPE))
        for file in files:
            place(self.files, file.path, Node(tarfile.REGTYPE, file.content, executable=file.executable))

    def run(self, command: Command, watch: Watch) -> Outcome:
        self._sandbox.begin("run")
        self._sandbox.commands.append(command)
        process = Process(self._sandbox, self, command, watch)
        program = self._sandbox.programs.get(command.script, not_found)
        with contextlib.suppress(_EndedError):
            process.outcome.exit_code = program(process) or 0
        return process.outcome

    @contextlib.contextmanager
    def take(self, path: str) -> Iterator[Output]:
        self._sandbox.begin("take")
        parts = path.split("/") if path not in ("", ".") else []
        for depth in range(1, len(parts)):
            if not self._safe_node("/".join(parts[:depth])).is_folder:
                raise OutputMissingError(path)
        path = "/".join(parts)
        yield Output(self._safe_node(path).is_folder, self._stream(path))

    def _safe_node(self, path: str) -> Node:
        node = self.files.get(path)
        if node is None:
            raise OutputMissingError(path)
        if node.is_unsafe:
            raise OutputUnsafeError(path)
        return node

    def _stream(self, path: str) -> Iterator[bytes]:
        archive = _tar_of(self.files, path)
        middle = len(archive.rstrip(b"\0")) // 2  # of the content: zeros mark the end
        yield from _chunks(archive[:middle])
        self._sandbox.begin("stream")
        yield from _chunks(archive[middle:])

    def remove(self) -> None:
        self._sandbox.remove(self._identity)


def _tar_of(files: Files, path: str) -> bytes:
    """The tree at a path as a tar archive; names start with the path's last part."""
    above = path.rpartition("/")[0]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, node in sorted(files.items()):
            if not path or name == path or name.startswith(f"{path}/"):
                member = tarfile.TarInfo(name[len(above) :].lstrip("/") if path else f"app/{name}".rstrip("/"))
                member.type, member.linkname, member.size = node.kind, node.target, len(node.content)
                archive.addfile(member, io.BytesIO(node.content))
    return buffer.getvalue()


def _chunks(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]
