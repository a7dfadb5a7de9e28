"""Pausing the queue: no build is started, here or outside, until it is resumed; what runs goes on.

A row of the database says so, and `builds.queue.claims.claim` heeds it: no process has to be told, and none forgets.
"""

from functools import partial

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction

from builds.models import Build, QueuePause
from builds.queue.claims import bell
from chef.jobs.models import Status


def pause_queue(*, by: User, reason: str = "") -> bool:
    """False when the queue was paused before: it stays so, as it was."""
    return QueuePause.objects.get_or_create(pk=1, defaults={"by": by, "reason": reason})[1]


def resume_queue() -> bool:
    """False when the queue was not paused."""
    with transaction.atomic():
        resumed = bool(QueuePause.objects.all().delete()[0])
        waiting = Build.objects.filter(status=Status.QUEUED, is_external=False).count()
        if resumed and waiting:
            transaction.on_commit(partial(bell.ring, min(waiting, settings.WORKER_CONCURRENCY)))
    return resumed


def current_pause() -> QueuePause | None:
    return QueuePause.objects.select_related("by").first()
