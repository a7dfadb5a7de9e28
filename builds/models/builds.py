"""The durable record of every build: attempts, phases, events, logs and artifacts.

Its status changes in `chef.jobs.models.Job.transition_to` alone; `Build` adds what goes with each change.
"""

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import OuterRef, Q, Subquery
from django.utils import timezone

from chef.jobs.models import TERMINAL, Job, JobQuerySet, Status, job_constraints
from projects.models import Generation, Project, Revision


class PhaseName(models.TextChoices):
    PREPARATION = "preparation"
    INSTALLATION = "installation"
    BUILD = "build"
    ARTIFACTS = "artifacts"
    CLEANUP = "cleanup"


PROGRESS: Mapping[PhaseName, int] = {
    PhaseName.PREPARATION: 10,
    PhaseName.INSTALLATION: 30,
    PhaseName.BUILD: 60,
    PhaseName.ARTIFACTS: 90,
    PhaseName.CLEANUP: 100,
}


class Priority(models.IntegerChoices):
    LOW = -10, "low"
    NORMAL = 0, "normal"
    HIGH = 10, "high"


class BuildQuerySet(JobQuerySet["Build"]):
    def with_details(self) -> "BuildQuerySet":
        """With everything that build documents need: three queries for any number of builds."""
        return (
            self.select_related("revision", "project").prefetch_related("attempts__phases").defer("revision__strategy")
        )

    def latest_of(self, projects: Iterable[Project]) -> "dict[uuid.UUID, Build]":
        """The latest build of each project that has one, by project id: one query."""
        # One look-up per project: a window function would read all builds of the projects.
        last = Build.objects.filter(project=OuterRef("pk")).order_by("-number").values("pk")[:1]
        of_each = Project.objects.filter(pk__in=[project.pk for project in projects]).annotate(last=Subquery(last))
        return {build.project_id: build for build in self.filter(pk__in=of_each.values("last"))}


class Build(Job):
    """One request to build one revision. Its id is the API's `jobId`."""

    # Where `db_index` is off, another index begins with the column; a second one would only slow writes.
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="builds", db_index=False)
    revision = models.ForeignKey(Revision, on_delete=models.PROTECT, related_name="builds")
    # The project's owner, kept here because the claim counts running builds by owner in one query.
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="builds", db_index=False)
    number = models.PositiveIntegerField()
    retry_of = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, blank=True, related_name="retries")
    # The generation that wrote the revision, if any; and the build that it is meant to repair, if any.
    generation = models.ForeignKey(
        Generation, on_delete=models.SET_NULL, null=True, blank=True, related_name="builds", db_index=False
    )
    repair_of = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, blank=True, related_name="repairs", db_index=False
    )
    priority = models.SmallIntegerField(choices=Priority, default=Priority.NORMAL)
    # Built by an external builder, which claims it through `builds.external`: our workers never do.
    is_external = models.BooleanField(default=False, db_default=False)

    phase = models.CharField(max_length=16, choices=PhaseName, blank=True)
    progress = models.PositiveSmallIntegerField(default=0)
    plan = models.JSONField(null=True, blank=True)  # the resolved strategy, see builds.runtimes.detection.Plan
    runtime = models.CharField(max_length=20, blank=True)  # the plan's, for lists
    image = models.CharField(max_length=100, blank=True)
    verdict = models.JSONField(null=True, blank=True)
    verdict_class = models.CharField(max_length=10, blank=True)  # the verdict's, for lists
    usage = models.JSONField(default=dict)
    egress = models.JSONField(default=list)
    log_bytes = models.PositiveBigIntegerField(default=0)
    log_truncated = models.BooleanField(default=False)
    pruned_at = models.DateTimeField(null=True, blank=True)  # when its log and artifacts were removed

    objects = BuildQuerySet.as_manager()

    class Meta(Job.Meta):
        ordering = ["-created_at"]
        permissions = [
            ("operate_build", "Can retry, cancel, hand back, quarantine, publish and prune builds"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="build_number_once"),
            *job_constraints("build"),
            models.CheckConstraint(
                condition=Q(status__in=[Status.FAILED, Status.CANCELLED], verdict__isnull=False)
                | (~Q(status__in=[Status.FAILED, Status.CANCELLED]) & Q(verdict__isnull=True)),
                name="build_verdict_iff_not_completed",
            ),
            models.CheckConstraint(condition=Q(progress__lte=100), name="build_progress_percent"),
        ]
        indexes = [
            # builds.queue.claims.in_claim_order, for either queue, and chef.jobs.reaping.wake_up_for_waiting
            models.Index(
                fields=["is_external", "-priority", "created_at"],
                name="build_claim_order",
                condition=Q(status=Status.QUEUED),
            ),
            # chef.jobs.reaping.reap_abandoned
            models.Index(fields=["lease_expires_at"], name="build_lease", condition=Q(status=Status.RUNNING)),
            # builds.api: an owner's builds, newest first, and with each filter
            models.Index(fields=["owner", "-created_at", "-id"], name="build_by_owner"),
            models.Index(fields=["owner", "status", "-created_at", "-id"], name="build_by_status"),
            models.Index(fields=["owner", "runtime", "-created_at", "-id"], name="build_by_runtime"),
            models.Index(fields=["owner", "verdict_class", "-created_at", "-id"], name="build_by_verdict"),
            # The same with two filters: many builds may match each of them, and few or none both.
            models.Index(fields=["owner", "status", "runtime", "-created_at", "-id"], name="build_by_status_runtime"),
            models.Index(
                fields=["owner", "verdict_class", "status", "-created_at", "-id"],
                name="build_by_verdict_status",
                condition=Q(verdict_class__gt=""),
            ),
            models.Index(
                fields=["owner", "verdict_class", "runtime", "-created_at", "-id"],
                name="build_by_verdict_runtime",
                condition=Q(verdict_class__gt=""),
            ),
            # The same for one project. The other filters stand at the end: a project has few enough builds to scan its
            # part of the index, but not to read each row.
            models.Index(
                fields=["project", "-created_at", "-id", "status", "runtime", "verdict_class"],
                name="build_by_project",
            ),
            # builds.admin and builds.operations.overview: everyone's builds, newest first. The filter columns stand at
            # the end, as above: rare matches are found without reading each row.
            models.Index(
                fields=["-created_at", "-id", "status", "runtime", "verdict_class", "priority", "is_external"],
                name="build_newest",
            ),
            models.Index(
                fields=["verdict_class", "-created_at", "-id", "status", "runtime"],
                name="build_newest_by_verdict",
                condition=Q(verdict_class__gt=""),
            ),
            # builds.queue.forecast: how long recent builds took
            models.Index(
                fields=["-finished_at"],
                name="build_finished",
                condition=Q(status=Status.COMPLETED, is_external=False),
            ),
            # builds.fix_loop, and the builds in a generation's document; few builds have a generation
            models.Index(
                fields=["generation", "number"], name="build_by_generation", condition=Q(generation__isnull=False)
            ),
            models.Index(fields=["repair_of"], name="build_by_mended", condition=Q(repair_of__isnull=False)),
            # builds.queue.claims.in_claim_order: how many builds each owner has running
            models.Index(
                fields=["owner", "is_external"], name="build_running_by_owner", condition=Q(status=Status.RUNNING)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.project.name} #{self.number}"

    @property
    def lease_seconds(self) -> float:
        return float(settings.OUTSIDE_LEASE_SECONDS) if self.is_external else super().lease_seconds

    def transition_to(self, status: Status, *, outcome: str = "", **changes: Any) -> None:
        if changes.get("verdict"):
            changes["verdict_class"] = changes["verdict"]["class"]
        super().transition_to(status, outcome=outcome, **changes)

    def record_transition(
        self, before: Status, status: Status, outcome: str, changes: Mapping[str, Any], now: datetime
    ) -> None:
        if before == Status.RUNNING:
            self._close_attempt(outcome, now)
        BuildEvent.objects.create(
            build=self,
            kind=BuildEvent.Kind.STATUS,
            from_status=before,
            to_status=status,
            fence=changes.get("fence", self.fence),
            data={"verdict": changes["verdict"]} if changes.get("verdict") else {},
        )

    def _close_attempt(self, outcome: str, now: datetime) -> None:
        self.attempts.filter(number=self.fence).update(outcome=outcome, finished_at=now)
        PhaseRun.objects.filter(attempt__build=self, attempt__number=self.fence, finished_at=None).update(
            status=PhaseRun.Status.INTERRUPTED, finished_at=now
        )


class Attempt(models.Model):
    """One attempt at a build by one worker; its number is the build's fence."""

    build = models.ForeignKey(Build, on_delete=models.CASCADE, related_name="attempts")
    number = models.PositiveIntegerField()
    worker = models.CharField(max_length=100)
    outcome = models.CharField(max_length=32, default="running")
    started_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["number"]
        constraints = [models.UniqueConstraint(fields=["build", "number"], name="attempt_number_once")]

    def __str__(self) -> str:
        return f"attempt {self.number}"


class PhaseRun(models.Model):
    """One phase of one attempt."""

    class Status(models.TextChoices):
        RUNNING = "running"
        COMPLETED = "completed"
        FAILED = "failed"
        SKIPPED = "skipped"
        INTERRUPTED = "interrupted"

    attempt = models.ForeignKey(Attempt, on_delete=models.CASCADE, related_name="phases")
    name = models.CharField(max_length=16, choices=PhaseName)
    status = models.CharField(max_length=12, choices=Status, default=Status.RUNNING)
    exit_code = models.IntegerField(null=True, blank=True)
    started_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["attempt", "name"], name="phase_once_per_attempt"),
            models.CheckConstraint(
                condition=Q(status="running", finished_at__isnull=True)
                | (~Q(status="running") & Q(finished_at__isnull=False)),
                name="phase_running_iff_unfinished",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class BuildEvent(models.Model):
    """A change of a build, written in the same transaction. Webhooks and live readers are fed from these rows."""

    class Kind(models.TextChoices):
        STATUS = "status"
        PHASE = "phase"

    build = models.ForeignKey(Build, on_delete=models.CASCADE, related_name="events")
    kind = models.CharField(max_length=8, choices=Kind)
    from_status = models.CharField(max_length=10, blank=True)
    to_status = models.CharField(max_length=10, blank=True)
    fence = models.PositiveIntegerField()
    data = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now)
    # For a change of status: whether its webhook deliveries have been created.
    # With a database default: during an update, older code that does not know the column may write events.
    is_told = models.BooleanField(default=False, db_default=False)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["build"],
                condition=Q(kind="status", to_status__in=TERMINAL),
                name="event_terminal_once",
            )
        ]
        indexes = [
            # the events of one build, in order
            models.Index(fields=["build", "id"], name="event_by_build"),
            # builds.webhooks.outbox: an event that is committed late may not have the highest number
            models.Index(fields=["id"], name="event_untold", condition=Q(kind="status", is_told=False)),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.to_status}".strip()


class LogChunk(models.Model):
    """Consecutive output of one stream in one phase: one or more lines, in the order of `sequence`."""

    class Stream(models.TextChoices):
        STDOUT = "stdout"
        STDERR = "stderr"
        SYSTEM = "system"  # Chef's own lines: commands, notices

    build = models.ForeignKey(Build, on_delete=models.CASCADE, related_name="log_chunks", db_index=False)
    attempt = models.PositiveIntegerField()
    sequence = models.PositiveIntegerField()
    phase = models.CharField(max_length=16, choices=PhaseName)
    stream = models.CharField(max_length=8, choices=Stream)
    timestamp = models.DateTimeField()
    text = models.TextField()

    class Meta:
        ordering = ["attempt", "sequence"]
        # builds.logs.entries.read_entries: the index behind the constraint serves the cursor
        constraints = [models.UniqueConstraint(fields=["build", "attempt", "sequence"], name="log_sequence_once")]

    def __str__(self) -> str:
        return f"{self.attempt}.{self.sequence}"


class Artifact(models.Model):
    """One output file: its name (a path), size in bytes, SHA-256, media type, and where its bytes are kept."""

    build = models.ForeignKey(Build, on_delete=models.CASCADE, related_name="artifacts")
    attempt = models.PositiveIntegerField()
    name = models.CharField(max_length=1024)
    size = models.PositiveBigIntegerField()
    sha256 = models.CharField(max_length=64)
    content_type = models.CharField(max_length=120)
    storage_key = models.CharField(max_length=200)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["build", "attempt", "name"], name="artifact_name_once")]

    def __str__(self) -> str:
        return self.name


class BaseFairShare(models.Model):
    """When a build of an owner was last claimed: among equals, the owner who has waited longest is next."""

    owner = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True)
    claimed_at = models.DateTimeField()

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.owner_id} at {self.claimed_at}"


class FairShare(BaseFairShare):
    """For builds that run here."""

    class Meta(BaseFairShare.Meta):
        db_table = "builds_ownerturn"  # the table's original name


class ExternalFairShare(BaseFairShare):
    """For builds that external builders run: they take no local capacity."""

    class Meta(BaseFairShare.Meta):
        db_table = "builds_outsideturn"  # the table's original name


# A host reports every few seconds; after this long without a report it counts as gone.
HOST_SILENCE = timedelta(seconds=35)


class WorkerHost(models.Model):
    """A machine that runs workers, as it last reported: the source of /health's workers and engines."""

    name = models.CharField(max_length=100, primary_key=True)
    workers = models.PositiveIntegerField()
    engine_fault = models.CharField(max_length=300, blank=True)  # empty: the engine answers
    engine = models.JSONField(null=True, blank=True)  # sandbox.engine.engine_status(); None: not asked yet
    seen_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name
