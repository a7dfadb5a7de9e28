"""Child processes: they end with their parent, even if it is killed, and are only ever ended by their id."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

_PR_SET_PDEATHSIG = 1
_LOG_BYTES = 5_000_000
# The stage of services that all others need: they are stopped last.
FIRST_STAGE = 0


class SetupError(Exception):
    """The command cannot continue; the text says what is wrong and what to do."""


class Service:
    """A process that runs until it is stopped, with its output in a log file.

    `stage` orders the shutdown: higher stages are stopped first. `grace`: seconds after `stop_signal` until it is
    killed. `user`: another user to run it as; needs root.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        folder: Path | None = None,
        user: str | None = None,
        stage: int = 1,
        stop_signal: signal.Signals = signal.SIGTERM,
        grace: float = 10.0,
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.log = log
        self.stage = stage
        self.grace = grace
        self._environment = dict(environment)
        self._folder = folder
        self._user = user
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it. Call this from the main thread: the kernel ties the process to the thread that created it."""
        with open_log(self.log) as log:
            self._process = subprocess.Popen(
                self.argv,
                cwd=self._folder,
                env=self._environment,
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A new session: Ctrl-C in the terminal must reach only the parent, which stops the services in order.
                start_new_session=True,
                preexec_fn=tie_to_parent(self._stop_signal),
            )

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        return self._process.poll() if self._process else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def ask_to_stop(self) -> None:
        if self.is_running and self._process:
            self._process.send_signal(self._stop_signal)

    def kill(self) -> None:
        """Kill it at once, with everything left in its process group."""
        if self._process and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def stop(self) -> None:
        """Ask it to stop, and kill it if it has not after its grace period."""
        stop_together([self])

    def last_output(self, lines: int = 15) -> str:
        return last_lines(self.log, lines)


def bring_up(service: Service, answers: Callable[[], bool], *, seconds: float) -> None:
    """Start a service and wait until it answers. Raises SetupError with its last output if it does not."""
    try:
        service.start()
    except OSError as error:
        raise SetupError(f"{service.name} cannot be started: {error}.") from error
    until(lambda: answers() or not service.is_running, seconds=seconds)
    if service.is_running and answers():
        return
    service.stop()
    raise SetupError(f"{service.name} was started, but does not answer. {service.log} ends:\n{service.last_output()}")


def stop_together(services: Sequence[Service], *, hurry: Callable[[], bool] = lambda: False) -> None:
    """Stop services, highest stage first, each stage together. When `hurry` returns True, kill what is left."""
    for stage in sorted({service.stage for service in services}, reverse=True):
        members = [service for service in services if service.stage == stage]
        for service in members:
            service.ask_to_stop()
        started = time.monotonic()
        for service in members:
            deadline = started + service.grace
            while service.is_running and time.monotonic() < deadline and not hurry():
                time.sleep(0.05)
            service.kill()


def tie_to_parent(number: signal.Signals) -> Callable[[], None] | None:
    """For preexec_fn: has the kernel send the child `number` when its parent dies. Linux only; else None."""
    if sys.platform != "linux":
        return None
    parent, libc = os.getpid(), ctypes.CDLL(None)

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # the parent died before the call above
            os._exit(1)

    return tie


def until(check: Callable[[], bool], *, seconds: float, every: float = 0.05) -> bool:
    """Whether `check` became true in time."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def is_free(port: int) -> bool:
    """Whether a server can listen on this loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: a closing connection does not block the port
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def open_log(path: Path, *, anew: bool = False) -> BinaryIO:
    """Open the log to append or overwrite; a large one is renamed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if anew:
        return path.open("wb")
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_suffix(".log.old"))
    return path.open("ab")


def last_lines(path: Path, count: int) -> str:
    """The end of a text file, indented; empty if there is no such file."""
    try:
        text = path.read_bytes()[-20_000:].decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-count:])


def write_secret(path: Path, text: str) -> None:
    """Create a file that only its owner can read."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
