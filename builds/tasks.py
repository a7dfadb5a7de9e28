"""The queue's door: what an RQ job does. A job carries nothing; the database says what there is to do."""

import logging
import os
import signal
import socket
import threading
import time
from types import FrameType

from django.conf import settings

from builds.queue import LeaseLost, claim
from builds.runner import Run
from builds.sandbox import open_sandbox

logger = logging.getLogger(__name__)


def run_next() -> None:
    """Claim the best eligible build, if there is one, and run it to its end."""
    stopping = StopSignal()
    lease = claim(f"{socket.gethostname()}:{os.getpid()}")
    if lease is None:
        return
    with lease.kept_alive(should_hand_back=stopping.is_due):
        try:
            Run(lease, open_sandbox).execute()
        except LeaseLost as lost:
            logger.warning("%s", lost)


class StopSignal:
    """Whether this process should give its build back: the grace after SIGTERM is over, or its worker is dead."""

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
