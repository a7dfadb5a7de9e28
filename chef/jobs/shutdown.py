"""How a process that runs a job learns that it has to stop."""

import os
import signal
import socket
import threading
import time
from types import FrameType

from django.conf import settings


def worker_name() -> str:
    """This process's name in the records of its jobs."""
    return f"{socket.gethostname()}:{os.getpid()}"


class GracefulShutdown:
    """Whether this process must hand its job back: the grace period after SIGTERM is over, or its parent has died.

    Create it in the main thread, where it handles SIGTERM; in other threads it only watches the parent.
    """

    def __init__(self) -> None:
        self._parent = os.getppid()
        self._requested_at: float | None = None
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        self._requested_at = self._requested_at or time.monotonic()

    def is_due(self) -> bool:
        if os.getppid() != self._parent:
            return True
        return (
            self._requested_at is not None and time.monotonic() - self._requested_at >= settings.SHUTDOWN_GRACE_SECONDS
        )
