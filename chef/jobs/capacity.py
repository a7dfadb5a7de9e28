"""How many jobs may wait: past an owner's limit, or the installation's, a request is refused and nothing is kept."""

from typing import Any

from django.conf import settings
from django.contrib.auth.models import User

from chef.jobs.models import Status
from chef.jobs.queues import JobQueue
from chef.refusals import RefusalError


class QueueFullError(RefusalError):
    """The installation has as many queued jobs as it takes. `retry_after`: seconds until there may be room."""

    code, status = "queue_full", 503
    retry_after: int

    def __init__(self, jobs: str, *, retry_after: int) -> None:
        super().__init__(
            f"The queue is full: {settings.MAX_QUEUED:,} {jobs} wait, as many as this installation takes. "
            f"Nothing has been kept of this request: send it again in {retry_after} s.",
            retry_after=retry_after,
        )


class OwnerQueueFullError(RefusalError):
    """The owner has as many queued jobs as one may. `retry_after`: seconds until there may be room."""

    code, status = "owner_queue_full", 429
    retry_after: int

    def __init__(self, jobs: str, *, retry_after: int) -> None:
        super().__init__(
            f"You have {settings.OWNER_MAX_QUEUED:,} {jobs} waiting, as many as one owner may. Nothing has been kept "
            f"of this request: cancel {jobs} that you no longer need, or send it again in {retry_after} s.",
            retry_after=retry_after,
        )


def make_sure_of_room(queue: JobQueue[Any, Any], owner: int) -> None:
    """Refuse when the queue is full: exactly for the owner; for all, give or take what is being queued just now.

    To be called in the transaction that adds a job. Raises OwnerQueueFullError and QueueFullError.
    """
    # Locked until the commit, so that the next request of this owner counts this job too. Rows that point to the
    # owner, such as those of this transaction, do not conflict with this kind of lock.
    User.objects.select_for_update(no_key=True).only("pk").get(pk=owner)
    queued = queue.jobs().filter(status=Status.QUEUED)
    if queued.filter(owner=owner).count() >= settings.OWNER_MAX_QUEUED:
        raise OwnerQueueFullError(queue.name, retry_after=queue.seconds_to_room(owner))
    if queued.count() >= settings.MAX_QUEUED:
        raise QueueFullError(queue.name, retry_after=queue.seconds_to_room())
