"""What a worker does at each wake-up: claim one job and run it to its end."""

import logging
from collections.abc import Callable

from chef.jobs.claims import claim
from chef.jobs.leases import LeaseLostError
from chef.jobs.queues import J, JobQueue, L
from chef.jobs.shutdown import GracefulShutdown, worker_name

logger = logging.getLogger(__name__)


def run_next(queue: JobQueue[J, L], run: Callable[[L], None]) -> None:
    """Claim the best eligible job, if any, and `run` it to its end while renewing its lease."""
    shutdown = GracefulShutdown()
    lease = claim(queue, worker_name())
    if lease is None:
        return
    with lease.kept_alive(should_hand_back=shutdown.is_due):
        try:
            run(lease)
        except LeaseLostError as lost:
            logger.warning("%s", lost)
