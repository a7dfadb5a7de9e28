"""Claiming: a worker takes the best eligible job of a queue, and no two workers ever take the same one."""

from django.db import connection, transaction
from django.utils import timezone

from chef.jobs.models import TransitionRefusedError
from chef.jobs.queues import J, JobQueue, L


def claim(queue: JobQueue[J, L], worker: str) -> L | None:
    """Take the best eligible job of a queue; None when there is none.

    PostgreSQL skips rows that another worker is claiming; SQLite has one writer at a time, so plain compare-and-set
    suffices there.
    """
    while True:
        try:
            with transaction.atomic():
                job = _best(queue)
                return None if job is None else queue.start(job, worker)
        except TransitionRefusedError:
            continue  # another worker was first: try the next


def _best(queue: JobQueue[J, L]) -> J | None:
    jobs = queue.in_claim_order(timezone.now())
    if connection.features.has_select_for_update_skip_locked:
        jobs = jobs.select_for_update(skip_locked=True, of=("self",))
    return jobs.first()
