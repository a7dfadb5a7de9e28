"""What happens to jobs after an infra fault: a dead worker, a failed engine or database, a lost wake-up.

Any number of processes may run this at once: every change is a compare-and-set.
"""

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from chef.jobs.models import Status, TransitionRefusedError
from chef.jobs.queues import Fault, J, JobQueue, L

logger = logging.getLogger(__name__)


def after_fault(queue: JobQueue[J, L], job: J, fault: Fault) -> tuple[Status, dict[str, Any]]:
    """A running job's next status after an infra fault, and the arguments for `transition_to`.

    It is requeued with back-off, or fails when its attempts are used up.
    """
    changes: dict[str, Any] = {"outcome": fault.code, "faults": job.faults + 1}
    if changes["faults"] >= settings.MAX_ATTEMPTS:
        return Status.FAILED, changes | queue.failed_by(job, fault)
    changes["available_at"] = timezone.now() + backoff(changes["faults"])
    return Status.QUEUED, changes | queue.requeued_by(fault)


def backoff(faults: int) -> timedelta:
    """How long a job waits after its n-th infra fault: 2 s, 4 s, 8 s, ..."""
    return timedelta(seconds=2 ** max(1, faults))


def reap_abandoned(queue: JobQueue[J, L], *, discard: Callable[[J], object] = lambda job: None) -> int:
    """Take jobs with an expired lease, in any queue of this kind, from their workers. Returns how many.

    `discard` is called with each, to remove what its attempt has left outside the database.
    """
    return sum(_reap(queue, job, discard) for job in queue.of_all_queues().abandoned(timezone.now()))


def _reap(queue: JobQueue[J, L], job: J, discard: Callable[[J], object]) -> bool:
    silent = f"{job.worker} was silent for {job.lease_seconds:g} s {queue.current_step(job)}".rstrip()
    status, changes = after_fault(queue, job, Fault("worker_lost", silent))
    try:
        job.transition_to(status, **changes)
    except TransitionRefusedError:
        return False  # the worker renewed its lease at the last moment, or another reaper was first
    discard(job)
    logger.warning("%s %s: %s; now %s", job._meta.verbose_name, job.pk, silent, status)
    return True


def wake_up_for_waiting(queue: JobQueue[J, L]) -> int:
    """Wake up workers for waiting jobs when no wake-up is pending. Returns the number of wake-ups."""
    if queue.workers is None:
        return 0
    return queue.workers.wake_up_for(lambda: queue.in_claim_order(timezone.now())[: queue.concurrency].count())
