"""Limits on queued jobs, per owner and per installation: beyond them a request is refused and nothing is stored."""

from typing import Any

from django.conf import settings
from django.contrib.auth.models import User

from chef.jobs.models import Status
from chef.jobs.queues import JobQueue
from chef.refusals import RefusalError


class QueueFullError(RefusalError):
    """The installation's queue is full. `retry_after`: seconds until there may be room."""

    code, status = "queue_full", 503
    retry_after: int

    def __init__(self, jobs: str, *, retry_after: int) -> None:
        super().__init__(
            f"The queue is full: {settings.MAX_QUEUED:,} {jobs} are waiting, the most this installation allows. "
            f"Nothing from this request was stored: send it again in {retry_after} s.",
            retry_after=retry_after,
        )


class OwnerQueueFullError(RefusalError):
    """The owner's queue is full. `retry_after`: seconds until there may be room."""

    code, status = "owner_queue_full", 429
    retry_after: int

    def __init__(self, jobs: str, *, retry_after: int) -> None:
        super().__init__(
            f"You have {settings.OWNER_MAX_QUEUED:,} {jobs} waiting, the most one owner may have. Nothing from this "
            f"request was stored: cancel {jobs} that you no longer need, or send it again in {retry_after} s.",
            retry_after=retry_after,
        )


def refuse_when_full(queue: JobQueue[Any, Any], owner: int) -> None:
    """Refuse when the queue is full. The owner's limit is exact; the total may be off by jobs being queued right now.

    Call it in the transaction that adds a job. Raises OwnerQueueFullError and QueueFullError.
    """
    # Locked until the commit, so that the owner's next request counts this job too. Inserting rows that reference the
    # owner, as this transaction does, does not conflict with this kind of lock.
    User.objects.select_for_update(no_key=True).only("pk").get(pk=owner)
    queued = queue.jobs().filter(status=Status.QUEUED)
    if queued.filter(owner=owner).count() >= settings.OWNER_MAX_QUEUED:
        raise OwnerQueueFullError(queue.name, retry_after=queue.seconds_to_room(owner))
    if queued.count() >= settings.MAX_QUEUED:
        raise QueueFullError(queue.name, retry_after=queue.seconds_to_room())
