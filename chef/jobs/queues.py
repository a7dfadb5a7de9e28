"""What each queue defines, so that claims, capacity, reaping and workers are written only once.

The database is the queue: see chef.jobs.models. The queues are builds.queue.claims.LOCAL_BUILDS and EXTERNAL_BUILDS,
and projects.generations.queue.GENERATIONS.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from chef.jobs.leases import Lease
from chef.jobs.models import Job, JobQuerySet
from chef.jobs.wakeups import WorkerQueue

J = TypeVar("J", bound=Job)
L = TypeVar("L", bound=Lease[Any])


@dataclass(frozen=True)
class Fault:
    """An infra fault that ended an attempt: its stable code, such as `worker_lost`, and the evidence."""

    code: str
    evidence: str


class JobQueue(ABC, Generic[J, L]):
    """A queue of one kind of job, `J`; claiming one returns a lease, `L`. Stateless."""

    model: type[J]
    name: str  # plural noun for its jobs in messages
    workers: WorkerQueue | None  # None: no process of this installation takes its jobs
    concurrency_setting: str  # setting that says how many of its jobs one machine runs at once

    @property
    def concurrency(self) -> int:
        return int(getattr(settings, self.concurrency_setting))

    @abstractmethod
    def jobs(self) -> QuerySet[J]:
        """All of its jobs, of any status."""

    @abstractmethod
    def in_claim_order(self, now: datetime) -> QuerySet[J]:
        """Jobs that may be claimed now, best first."""

    @abstractmethod
    def start(self, job: J, worker: str) -> L:
        """Give a job from `in_claim_order` to a worker, in the claim's transaction.

        Raises TransitionRefusedError when it must no longer run, or another worker was first.
        """

    @abstractmethod
    def seconds_to_room(self, owner: int | None = None) -> int:
        """Seconds until a full queue may have room for one more job of this owner, or of any owner."""

    @abstractmethod
    def failed_by(self, job: J, fault: Fault) -> dict[str, Any]:
        """Columns to set on a job that has used up its attempts; `fault` ended the last one."""

    def requeued_by(self, fault: Fault) -> dict[str, Any]:
        """Columns to set on a job that is requeued after a fault, besides those that all jobs have."""
        return {}

    def current_step(self, job: J) -> str:
        """The running job's step, for messages, such as "during installation"; empty when unknown."""
        return ""

    def of_all_queues(self) -> JobQuerySet[J]:
        """All jobs of this kind, in any queue: leases expire the same way in each."""
        rows: JobQuerySet[J] = self.model._default_manager.all()  # type: ignore[assignment]
        return rows

    def wake_up(self, times: int = 1) -> None:
        """Tell the workers that there may be work. Never raises; costs a short time-out if Redis does not answer."""
        if self.workers:
            self.workers.wake_up(times)

    def wake_up_on_commit(self, jobs: int = 1) -> None:
        """After this transaction commits, wake up enough workers for this many jobs."""
        if jobs:
            transaction.on_commit(partial(self.wake_up, min(jobs, self.concurrency)))
