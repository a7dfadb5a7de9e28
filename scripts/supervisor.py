"""Keeps services running: restarts one that dies, with back-off, and stops all together."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Self

from scripts.processes import Service, SetupError, stop_together

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0
# A service that has run for this long has recovered, and its next death counts as the first.
_HEALTHY_SECONDS = 60.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignalError(BaseException):
    """A signal asked this process to stop."""


@dataclass
class _Supervised:
    service: Service
    started: float
    wait: float = _FIRST_WAIT
    due: float | None = None  # when to restart it, while it is dead
    deaths: int = 0


class Supervisor:
    """A context manager in which SIGINT, SIGTERM and SIGHUP raise StopSignalError; on exit, all services are stopped.

    Single-threaded on purpose: the kernel ties a process to the thread that started it.
    """

    def __init__(self, report: Callable[[str], None] = print) -> None:
        self._report = report
        self._supervised: list[_Supervised] = []
        self._impatient = False

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            signal.signal(number, self._interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._hurry)
        running = [entry.service for entry in self._supervised]
        slowest = max((service.grace for service in running), default=0)
        if kind is StopSignalError and running:
            self._report(f"\nStopping. If builds run, this takes up to {slowest:.0f} s; Ctrl-C again stops at once.")
        stop_together(running, hurry=lambda: self._impatient)

    def adopt(self, service: Service) -> None:
        """Supervise a service that is already running."""
        self._supervised.append(_Supervised(service, time.monotonic()))

    def start(self, service: Service) -> None:
        service.start()
        self.adopt(service)

    def restart_dead(self) -> None:
        """Restart dead services whose back-off is over. Call it often."""
        for entry in self._supervised:
            now = time.monotonic()
            if entry.due is not None and now >= entry.due:
                entry.due, entry.started = None, now
                entry.service.start()
            elif entry.due is None and entry.service.exit_code is not None:
                self._note_death(entry, now)

    def watch(self, done: Callable[[], bool] = lambda: False, *, seconds: float = float("inf")) -> bool:
        """Supervise until `done`, or for `seconds`. Returns whether it was done."""
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                return False
            self.restart_dead()
            time.sleep(0.1)
        return True

    def give_up_after(self, deaths: int) -> None:
        """Raise SetupError, with its last output, if a service has died this often."""
        for entry in self._supervised:
            if entry.deaths >= deaths:
                service = entry.service
                raise SetupError(
                    f"{service.name} ends as soon as it starts. {service.log} ends:\n{service.last_output()}"
                )

    def _note_death(self, entry: _Supervised, now: float) -> None:
        if now - entry.started > _HEALTHY_SECONDS:
            entry.wait, entry.deaths = _FIRST_WAIT, 0
        entry.deaths += 1
        entry.due = now + entry.wait
        service = entry.service
        self._report(
            f"{service.name} ended ({_reason(service.exit_code)}) and will be restarted in {entry.wait:.0f} s; "
            f"its log: {service.log}"
        )
        entry.wait = min(entry.wait * 2, _LONGEST_WAIT)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        raise StopSignalError(number)

    def _hurry(self, number: int, frame: FrameType | None) -> None:
        self._impatient = True


def _reason(code: int | None) -> str:
    if code is not None and code < 0:
        return f"by signal {-code}"
    return f"exit code {code}"
