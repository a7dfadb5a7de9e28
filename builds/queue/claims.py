"""The two queues of builds: the claim order, and what a claim or a fault changes on a build.

Claiming, refusing and reaping jobs in general is in chef.jobs; this is only what builds add.
"""

from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import Count, Exists, F, IntegerField, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from builds.models import Attempt, Build, BuildQuerySet, QueuePause
from builds.queue.fair_share import fair_shares, serve
from builds.queue.forecast import USUAL_WAIT, seconds_to_room
from builds.verdicts.evidence import verdict
from chef.jobs import claims
from chef.jobs.leases import Lease
from chef.jobs.models import Status, TransitionRefusedError
from chef.jobs.queues import Fault, JobQueue
from chef.jobs.wakeups import WorkerQueue
from projects.models import Quarantine


class BuildLease(Lease[Build]):
    """One attempt's right to write about its build."""

    def __init__(self, build: Build, attempt: Attempt) -> None:
        super().__init__(build)
        self.attempt = attempt

    @property
    def build(self) -> Build:
        return self.job


class BuildQueue(JobQueue[Build, BuildLease]):
    """Builds for our workers, or for external builders. Each queue ignores what runs in the other."""

    model = Build
    name = "builds"
    concurrency_setting = "WORKER_CONCURRENCY"

    def __init__(self, workers: WorkerQueue | None, *, is_external: bool) -> None:
        self.workers = workers
        self.is_external = is_external
        self._shares = fair_shares(is_external=is_external)

    def jobs(self) -> BuildQuerySet:
        return Build.objects.filter(is_external=self.is_external)

    def in_claim_order(self, now: datetime) -> BuildQuerySet:
        """Eligible builds: by priority, the owner's running builds, when the owner was last served, age.

        Owners with the fewest running builds come first, then the owner served longest ago, or never: with one worker,
        nothing runs when it claims, so only fair shares keep one owner's long queue from starving the others. Builds of
        an owner at the limit of running builds are left out, and wait without blocking others; so are builds of
        projects in quarantine, and all builds while the queue is paused. builds.queue.forecast predicts this order:
        change both.
        """
        running = self.jobs().filter(owner=OuterRef("owner"), status=Status.RUNNING).order_by().values("owner")
        count = running.annotate(count=Count("pk")).values("count")
        queued = (
            _allowed(self.jobs())
            .eligible(now)
            .annotate(
                owner_running=Coalesce(Subquery(count, output_field=IntegerField()), 0),
                owner_served_at=F(f"owner__{self._shares._meta.model_name}__claimed_at"),
            )
        )
        if settings.OWNER_MAX_RUNNING:
            queued = queued.filter(owner_running__lt=settings.OWNER_MAX_RUNNING)
        served_at = F("owner_served_at").asc(nulls_first=True)
        return queued.order_by("-priority", "owner_running", served_at, "created_at", "pk")

    def start(self, job: Build, worker: str) -> BuildLease:
        """Record that the owner is served, and begin an attempt. Raises TransitionRefusedError.

        Claims of one owner's builds are serialised: each sees what the previous one started, so that the order and the
        limit hold for any number of concurrent claims.
        """
        # Check again, now that the build is locked: this sees a pause or a quarantine committed after the first query.
        if not _allowed(Build.objects.filter(pk=job.pk)).exists():
            raise TransitionRefusedError(f"build {job.pk} must no longer run")
        serve(self._shares, job.owner_id, since=job.owner_served_at)  # type: ignore[attr-defined]  # annotated
        job.start(worker, phase="", progress=0, log_bytes=0, log_truncated=False, usage={}, egress=[])
        started = Attempt.objects.create(build=job, number=job.fence, worker=worker, started_at=timezone.now())
        return BuildLease(job, started)

    def seconds_to_room(self, owner: int | None = None) -> int:
        return USUAL_WAIT if self.is_external else seconds_to_room(owner)

    def failed_by(self, job: Build, fault: Fault) -> dict[str, Any]:
        evidence = [f"{fault.code}: {fault.evidence}"]
        return {"verdict": verdict("attempts_exhausted", phase=job.phase, evidence=evidence).as_json()}

    def requeued_by(self, fault: Fault) -> dict[str, Any]:
        return {"phase": "", "progress": 0}

    def current_step(self, job: Build) -> str:
        return f"during {job.phase or 'the start'}"


def _allowed(builds: BuildQuerySet) -> BuildQuerySet:
    quarantine = Quarantine.objects.filter(project=OuterRef("project"))
    return builds.filter(~Exists(QueuePause.objects.all()), ~Exists(quarantine))


LOCAL_BUILDS = BuildQueue(WorkerQueue("builds", "builds.tasks.run_next"), is_external=False)
EXTERNAL_BUILDS = BuildQueue(None, is_external=True)


def queue_of(*, is_external: bool) -> BuildQueue:
    return EXTERNAL_BUILDS if is_external else LOCAL_BUILDS


def claim(worker: str, *, is_external: bool = False) -> BuildLease | None:
    """Take the best eligible build of one queue; None when there is none."""
    return claims.claim(queue_of(is_external=is_external), worker)
