"""Steps of a set-up: commands that run to their end, several at once, each told with the seconds it took."""

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
    """A command with its output in a log file. `shows` picks the lines of it that are of interest as they come."""

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

    def tell_news(self) -> None:
        """Print the lines of interest that have come since the last time."""
        with self.log.open("rb") as log:
            log.seek(self._read)
            news = log.read()
        whole, newline, _ = news.rpartition(b"\n")
        self._read += len(whole) + len(newline)
        for line in whole.decode(errors="replace").splitlines():
            if self.shows(line):
                print(f"           {line}", flush=True)

    def end(self, code: int) -> None:
        self.tell_news()
        seconds = time.monotonic() - self._began
        if code != 0:
            raise SetupError(f"{self.name} failed after {seconds:.0f} s. {self.log} ends:\n{last_lines(self.log, 15)}")
        tell_seconds(seconds, self.name)


def run_together(*steps: Step) -> None:
    """Run all at once and wait for them. Raises SetupError, after stopping the others, when one fails."""
    running = {step.name: (step, step.begin()) for step in steps}
    try:
        while running:
            for name, (step, process) in list(running.items()):
                step.tell_news()
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


def tell_seconds(seconds: float, what: str) -> None:
    print(f"  {seconds:6.1f} s {what}", flush=True)
