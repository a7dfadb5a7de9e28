"""Keeps services running: one that dies is started again, each time a little later; all are stopped together."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Self

from scripts.processes import Service, SetupError, stop_together

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0
# One that has run for this long has recovered, and its next death counts as a first one.
_HEALTHY_SECONDS = 60.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignalError(BaseException):
    """A signal asked this process to stop."""


@dataclass
class _Ward:
    service: Service
    started: float
    wait: float = _FIRST_WAIT
    due: float | None = None  # when to start it again, while it is dead
    deaths: int = 0


class Supervisor:
    """A context manager; inside of it SIGINT, SIGTERM and SIGHUP raise StopSignalError, and at its end all is stopped.

    Single-threaded on purpose: the kernel ties a process to the thread that started it.
    """

    def __init__(self, tell: Callable[[str], None] = print) -> None:
        self._tell = tell
        self._wards: list[_Ward] = []
        self._impatient = False

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            signal.signal(number, self._interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._hurry)
        running = [ward.service for ward in self._wards]
        slowest = max((service.grace for service in running), default=0)
        if kind is StopSignalError and running:
            self._tell(f"\nStopping. If builds run, this takes up to {slowest:.0f} s; Ctrl-C again stops at once.")
        stop_together(running, hurry=lambda: self._impatient)

    def adopt(self, service: Service) -> None:
        """Watch over a service that runs already."""
        self._wards.append(_Ward(service, time.monotonic()))

    def start(self, service: Service) -> None:
        service.start()
        self.adopt(service)

    def tend(self) -> None:
        """Start again what has died and whose wait is over. Call it often."""
        for ward in self._wards:
            now = time.monotonic()
            if ward.due is not None and now >= ward.due:
                ward.due, ward.started = None, now
                ward.service.start()
            elif ward.due is None and ward.service.exit_code is not None:
                self._note_death(ward, now)

    def watch(self, done: Callable[[], bool] = lambda: False, *, seconds: float = float("inf")) -> bool:
        """Tend until `done`, or for that long. Returns whether it was done."""
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                return False
            self.tend()
            time.sleep(0.1)
        return True

    def give_up_after(self, deaths: int) -> None:
        """Raise SetupError, with its last words, when a service has died that often."""
        for ward in self._wards:
            if ward.deaths >= deaths:
                service = ward.service
                raise SetupError(
                    f"{service.name} ends as soon as it starts. {service.log} ends:\n{service.last_words()}"
                )

    def _note_death(self, ward: _Ward, now: float) -> None:
        if now - ward.started > _HEALTHY_SECONDS:
            ward.wait, ward.deaths = _FIRST_WAIT, 0
        ward.deaths += 1
        ward.due = now + ward.wait
        service = ward.service
        self._tell(
            f"{service.name} ended ({_reason(service.exit_code)}) and is started again in {ward.wait:.0f} s; "
            f"its log: {service.log}"
        )
        ward.wait = min(ward.wait * 2, _LONGEST_WAIT)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        raise StopSignalError(number)

    def _hurry(self, number: int, frame: FrameType | None) -> None:
        self._impatient = True


def _reason(code: int | None) -> str:
    if code is not None and code < 0:
        return f"by signal {-code}"
    return f"exit code {code}"
