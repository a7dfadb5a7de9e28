"""What one queue of jobs says for itself, so that claims, capacity, reaping and workers are written once.

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
    """An infra fault that has ended an attempt: its stable code, such as `worker_lost`, and what was seen of it."""

    code: str
    evidence: str


class JobQueue(ABC, Generic[J, L]):
    """One queue of one kind of job: `L` is the lease that a claim of a `J` gives. Keeps no state."""

    model: type[J]
    name: str  # of what waits, in the plural, as people are told of it
    workers: WorkerQueue | None  # None: no process of this installation works on it
    concurrency_setting: str  # names the setting: how many of its jobs the workers of one machine run at once

    @property
    def concurrency(self) -> int:
        return int(getattr(settings, self.concurrency_setting))

    @abstractmethod
    def jobs(self) -> QuerySet[J]:
        """All of its jobs, whatever their status."""

    @abstractmethod
    def in_claim_order(self, now: datetime) -> QuerySet[J]:
        """What may be claimed now, the best first."""

    @abstractmethod
    def start(self, job: J, worker: str) -> L:
        """Give a job that `in_claim_order` has named to a worker, in the claim's transaction.

        Raises TransitionRefusedError when it must not run any more, or another worker was first.
        """

    @abstractmethod
    def seconds_to_room(self, owner: int | None = None) -> int:
        """Seconds until there may be room for one more job of this owner, or of anyone, once the queue is full."""

    @abstractmethod
    def failed_by(self, job: J, fault: Fault) -> dict[str, Any]:
        """Columns of a job that fails because its attempts are spent, and `fault` was the last."""

    def requeued_by(self, fault: Fault) -> dict[str, Any]:
        """Columns of a job that goes back to the queue after a fault, but for those that all jobs have."""
        return {}

    def current_step(self, job: J) -> str:
        """Where in its work a running job is, for people, such as "during installation"; empty when unknown."""
        return ""

    def of_all_queues(self) -> JobQuerySet[J]:
        """The jobs of this kind in any queue: a lease runs out the same way in each."""
        rows: JobQuerySet[J] = self.model._default_manager.all()  # type: ignore[assignment]
        return rows

    def wake_up(self, times: int = 1) -> None:
        """Tell the workers that there may be work. Never raises; costs a short time-out where Redis is silent."""
        if self.workers:
            self.workers.wake_up(times)

    def wake_up_on_commit(self, jobs: int = 1) -> None:
        """Once this transaction is committed, wake up as many workers as can start so many jobs."""
        if jobs:
            transaction.on_commit(partial(self.wake_up, min(jobs, self.concurrency)))
