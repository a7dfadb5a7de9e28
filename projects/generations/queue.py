"""The queue of generations: the claim order, and what a fault changes on a generation.

Claiming, refusing and reaping jobs in general is in chef.jobs; this is only what generations add.
"""

from datetime import datetime
from typing import Any

from django.db.models import Count, Exists, IntegerField, OuterRef, Subquery
from django.db.models.functions import Coalesce

from chef.jobs import claims
from chef.jobs.leases import Lease
from chef.jobs.models import JobQuerySet, Status
from chef.jobs.queues import Fault, JobQueue
from chef.jobs.wakeups import WorkerQueue
from projects.engine.errors import EngineError
from projects.models import Generation, Quarantine


class GenerationQueue(JobQueue[Generation, Lease[Generation]]):
    """The only queue of generations."""

    model = Generation
    name = "generations"
    # The task is in builds, because a build follows a generation, and this package does not know builds.
    workers = WorkerQueue("generations", "builds.generations.generate_next")
    concurrency_setting = "GENERATION_CONCURRENCY"

    def jobs(self) -> JobQuerySet[Generation]:
        return Generation.objects.all()

    def in_claim_order(self, now: datetime) -> JobQuerySet[Any]:
        """Eligible generations: by the owner's number of running ones, then age.

        Those of projects in quarantine are left out.
        """
        running = self.jobs().filter(owner=OuterRef("owner"), status=Status.RUNNING).order_by().values("owner")
        count = running.annotate(count=Count("pk")).values("count")
        quarantine = Quarantine.objects.filter(project=OuterRef("project"))
        queued = (
            self.jobs()
            .eligible(now)
            .filter(~Exists(quarantine))
            .annotate(owner_running=Coalesce(Subquery(count, output_field=IntegerField()), 0))
        )
        return queued.order_by("owner_running", "created_at", "pk")

    def start(self, job: Generation, worker: str) -> Lease[Generation]:
        job.start(worker)
        return Lease(job)

    def seconds_to_room(self, owner: int | None = None) -> int:
        """A constant: models' answer times cannot be predicted."""
        return 30

    def failed_by(self, job: Generation, fault: Fault) -> dict[str, Any]:
        return {"error": EngineError("attempts_exhausted", fault.evidence).as_json()}


GENERATIONS = GenerationQueue()


def claim(worker: str) -> Lease[Generation] | None:
    """Take the best eligible generation; None when there is none."""
    return claims.claim(GENERATIONS, worker)
