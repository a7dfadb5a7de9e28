"""How a process that does a job knows that it has to end."""

import os
import signal
import socket
import threading
import time
from types import FrameType

from django.conf import settings


def worker_name() -> str:
    """What this process is called in the records of its jobs."""
    return f"{socket.gethostname()}:{os.getpid()}"


class StopSignal:
    """Whether this process should give its job back: the grace after SIGTERM is over, or its worker is dead."""

    def __init__(self) -> None:
        self._parent = os.getppid()
        self._told_at: float | None = None
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._told_at = self._told_at or time.monotonic()

    def is_due(self) -> bool:
        if os.getppid() != self._parent:
            return True
        return self._told_at is not None and time.monotonic() - self._told_at >= settings.SHUTDOWN_GRACE_SECONDS
