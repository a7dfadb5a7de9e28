"""Pausing the queue: no build is started, here or by external builders, until it is resumed; what runs goes on.

A row of the database says so, and every claim reads it, see builds.queue.claims: no process has to be notified, and
none forgets.
"""

from django.contrib.auth.models import User
from django.db import transaction

from builds.models import QueuePause
from builds.queue.claims import LOCAL_BUILDS
from chef.jobs.models import Status


def pause_queue(*, by: User, reason: str = "") -> bool:
    """False when the queue was paused before: it stays so, as it was."""
    return QueuePause.objects.get_or_create(pk=1, defaults={"by": by, "reason": reason})[1]


def resume_queue() -> bool:
    """False when the queue was not paused."""
    with transaction.atomic():
        resumed = bool(QueuePause.objects.all().delete()[0])
        if resumed:
            LOCAL_BUILDS.wake_up_on_commit(LOCAL_BUILDS.jobs().filter(status=Status.QUEUED).count())
    return resumed


def current_pause() -> QueuePause | None:
    return QueuePause.objects.select_related("by").first()
