"""Set-up steps: commands that run to their end, several at once, each printed with the seconds it took."""

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.processes import SetupError, last_lines, open_log, tie_to_parent

_GRACE_SECONDS = 10.0


@dataclass
class Step:
    """A command with its output in a log file. `shows` selects the lines to print as they appear."""

    name: str
    argv: Sequence[str]
    log: Path
    environment: Mapping[str, str]
    shows: Callable[[str], bool] = lambda line: False
    _read: int = field(default=0, init=False)
    _began: float = field(default=0.0, init=False)

    def begin(self) -> subprocess.Popen[bytes]:
        with open_log(self.log, anew=True) as log:
            self._read, self._began = 0, time.monotonic()
            return subprocess.Popen(
                self.argv,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=tie_to_parent(signal.SIGTERM),
            )

    def print_new_lines(self) -> None:
        """Print the selected lines since the last call."""
        with self.log.open("rb") as log:
            log.seek(self._read)
            new = log.read()
        whole, newline, _ = new.rpartition(b"\n")
        self._read += len(whole) + len(newline)
        for line in whole.decode(errors="replace").splitlines():
            if self.shows(line):
                print(f"           {line}", flush=True)

    def end(self, code: int) -> None:
        self.print_new_lines()
        seconds = time.monotonic() - self._began
        if code != 0:
            raise SetupError(f"{self.name} failed after {seconds:.0f} s. {self.log} ends:\n{last_lines(self.log, 15)}")
        print_seconds(seconds, self.name)


def run_together(*steps: Step) -> None:
    """Run all in parallel and wait for them. Raises SetupError, after stopping the others, if one fails."""
    running = {step.name: (step, step.begin()) for step in steps}
    try:
        while running:
            for name, (step, process) in list(running.items()):
                step.print_new_lines()
                if process.poll() is not None:
                    del running[name]
                    step.end(process.returncode)
            time.sleep(0.05)
    finally:
        _stop([process for _, process in running.values()])


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def print_seconds(seconds: float, what: str) -> None:
    print(f"  {seconds:6.1f} s {what}", flush=True)
