"""Pausing the queue: no build starts, here or at external builders, until it is resumed; running builds continue.

The state is a row in the database that every claim reads, see builds.queue.claims: no process has to be notified, and
restarts do not lose it.
"""

from django.contrib.auth.models import User
from django.db import transaction

from builds.models import QueuePause
from builds.queue.claims import LOCAL_BUILDS
from chef.jobs.models import Status


def pause_queue(*, by: User, reason: str = "") -> bool:
    """Pause the queue. False if it was paused already; nothing changes then."""
    return QueuePause.objects.get_or_create(pk=1, defaults={"by": by, "reason": reason})[1]


def resume_queue() -> bool:
    """Resume the queue. False if it was not paused."""
    with transaction.atomic():
        resumed = bool(QueuePause.objects.all().delete()[0])
        if resumed:
            LOCAL_BUILDS.wake_up_on_commit(LOCAL_BUILDS.jobs().filter(status=Status.QUEUED).count())
    return resumed


def current_pause() -> QueuePause | None:
    return QueuePause.objects.select_related("by").first()
