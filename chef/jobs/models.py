"""What builds and generations share: a durable record of who may work on a job, and of its status.

The database is the queue. Claiming a job increments its fence and takes a lease; every later write goes through
`held`, so that a worker that has lost its job cannot write about it. Only `Job.transition_to` changes the status.
"""

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Self, TypeVar

from django.conf import settings
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

from chef.jobs.pubsub import publish_change
from chef.refusals import RefusalError


class Status(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})

TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.CANCELLED}),
    Status.RUNNING: frozenset({Status.QUEUED, Status.COMPLETED, Status.FAILED, Status.CANCELLED}),
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}


class TransitionRefusedError(RefusalError):
    """The job no longer has the status or the fence that the writer read: another writer was first."""


J = TypeVar("J", bound="Job")


class JobQuerySet(models.QuerySet[J]):
    def active(self) -> Self:
        return self.filter(status__in=[Status.QUEUED, Status.RUNNING])

    def eligible(self, now: datetime) -> Self:
        """Queued, with the back-off over."""
        return self.filter(status=Status.QUEUED, available_at__lte=now)

    def abandoned(self, now: datetime) -> Self:
        """Running with an expired lease: the worker is presumed dead."""
        return self.filter(status=Status.RUNNING, lease_expires_at__lt=now)

    def held(self, job_id: uuid.UUID, fence: int) -> Self:
        """The job while it runs under this fence: the WHERE clause of all of its worker's writes."""
        return self.filter(pk=job_id, fence=fence, status=Status.RUNNING)


class Job(models.Model):
    """A queued piece of work that one worker at a time runs, and that survives the death of a worker."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    status = models.CharField(max_length=10, choices=Status, default=Status.QUEUED)
    fence = models.PositiveIntegerField(default=0)
    # Infra faults so far. A user's fault ends the job; an infra fault requeues it, until MAX_ATTEMPTS.
    faults = models.PositiveSmallIntegerField(default=0)
    available_at = models.DateTimeField(default=timezone.now)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    worker = models.CharField(max_length=100, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def lease_seconds(self) -> float:
        """How long the worker may be silent before another may take the job."""
        return float(settings.LEASE_SECONDS)

    def transition_to(self, status: Status, *, outcome: str = "", **changes: Any) -> None:
        """Change the status by compare-and-set, with its event, in one transaction. Nothing else changes a status.

        The row must still have the status and fence that this instance was read with. `changes` are further columns
        of the same write; `outcome` is recorded for the attempt that ends, by default the new status. Raises
        TransitionRefusedError, with nothing written, when TRANSITIONS does not allow the change or another writer was
        first.
        """
        kind = self._meta.verbose_name
        before, now = Status(self.status), timezone.now()
        if status not in TRANSITIONS[before]:
            raise TransitionRefusedError(f"{kind} {self.pk} is {before} and cannot become {status}")
        changes |= {"status": status, "finished_at": now if status in TERMINAL else None}
        if status != Status.RUNNING:
            changes["lease_expires_at"] = None
        with transaction.atomic():
            # The old status and fence are in the WHERE clause: no row means that another writer was first.
            rows = type(self)._default_manager.filter(pk=self.pk, status=before, fence=self.fence)
            if not rows.update(**changes):
                raise TransitionRefusedError(f"{kind} {self.pk} is no longer {before} under fence {self.fence}")
            self.record_transition(before, status, outcome or str(status), changes, now)
            transaction.on_commit(partial(publish_change, self.pk))
        for name, value in changes.items():
            setattr(self, name, value)

    def start(self, worker: str, **changes: Any) -> None:
        """Claim the job: it runs under a new fence and a lease. Raises TransitionRefusedError."""
        now = timezone.now()
        self.transition_to(
            Status.RUNNING,
            fence=self.fence + 1,
            worker=worker,
            lease_expires_at=now + timedelta(seconds=self.lease_seconds),
            started_at=self.started_at or now,
            **changes,
        )

    def record_transition(
        self, before: Status, status: Status, outcome: str, changes: Mapping[str, Any], now: datetime
    ) -> None:
        """Write what goes with a change of status, such as its event, in the same transaction."""
        raise NotImplementedError


def job_constraints(kind: str) -> list[models.BaseConstraint]:
    """Constraints that hold for every kind of job."""
    return [
        models.CheckConstraint(condition=Q(status__in=Status.values), name=f"{kind}_status_known"),
        models.CheckConstraint(
            condition=Q(status__in=TERMINAL, finished_at__isnull=False)
            | (~Q(status__in=TERMINAL) & Q(finished_at__isnull=True)),
            name=f"{kind}_terminal_iff_finished",
        ),
        models.CheckConstraint(
            condition=Q(status=Status.RUNNING, lease_expires_at__isnull=False)
            | (~Q(status=Status.RUNNING) & Q(lease_expires_at__isnull=True)),
            name=f"{kind}_running_iff_leased",
        ),
    ]
