"""The durable record of each run of the AI engine: its events, drafts, exchanges and tokens."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from chef.jobs.models import Job, JobQuerySet, Status, job_constraints
from projects.models.projects import Project, Revision


class Generation(Job):
    """One run of the AI engine: a prompt in, a revision out."""

    class Kind(models.TextChoices):
        NEW = "new"  # a project from a prompt
        EDIT = "edit"  # a change to a project, from a prompt
        REPAIR = "repair"  # a change meant to fix a failed build

    # Where `db_index` is off, another index begins with the column.
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="generations")
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="generations", db_index=False
    )
    kind = models.CharField(max_length=8, choices=Kind)
    prompt = models.TextField()
    # The strategy request in the API's form, like a revision's.
    strategy = models.JSONField(default=dict)
    analysis = models.BooleanField(default=True)
    tests = models.BooleanField(default=True)
    auto_fix = models.BooleanField(default=True)
    max_tokens = models.PositiveIntegerField()  # repairs share the limit of their root
    base = models.ForeignKey(Revision, on_delete=models.CASCADE, null=True, related_name="+")  # the revision to change
    retry_of = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, related_name="retries")
    # Of a repair: the generation whose app it repairs, and why its build failed (generations.actions.FailedBuild).
    root = models.ForeignKey("self", on_delete=models.CASCADE, null=True, related_name="repairs")
    failed = models.JSONField(null=True)

    provider = models.CharField(max_length=20, blank=True)
    model = models.CharField(max_length=100, blank=True)
    stage = models.CharField(max_length=16, blank=True)
    state = models.JSONField(null=True)  # see projects.engine.stages.state; the files are DraftFiles
    input_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    cost = models.DecimalField(max_digits=20, decimal_places=10, default=0)

    revision = models.OneToOneField(Revision, on_delete=models.CASCADE, null=True, related_name="generation")
    message = models.TextField(blank=True)
    diff = models.TextField(blank=True)
    error = models.JSONField(null=True)  # see projects.engine.errors
    # For a root whose builds are repaired: why repairs stopped, and the best revision.
    fix_ending = models.CharField(max_length=20, blank=True)
    best = models.ForeignKey(Revision, on_delete=models.CASCADE, null=True, related_name="+")

    objects = JobQuerySet["Generation"].as_manager()

    class Meta(Job.Meta):
        ordering = ["-created_at"]
        permissions = [("operate_generation", "Can cancel and retry generations")]
        constraints = [
            *job_constraints("generation"),
            models.CheckConstraint(
                condition=Q(status=Status.COMPLETED, revision__isnull=False)
                | (~Q(status=Status.COMPLETED) & Q(revision__isnull=True)),
                name="generation_completed_iff_revision",
            ),
            models.CheckConstraint(
                condition=Q(status__in=[Status.FAILED, Status.CANCELLED], error__isnull=False)
                | (~Q(status__in=[Status.FAILED, Status.CANCELLED]) & Q(error__isnull=True)),
                name="generation_error_iff_not_completed",
            ),
            models.CheckConstraint(
                condition=Q(kind="repair", root__isnull=False, failed__isnull=False)
                | (~Q(kind="repair") & Q(root__isnull=True, failed__isnull=True)),
                name="generation_repair_iff_rooted",
            ),
            # Two at once would overwrite each other's changes.
            models.UniqueConstraint(
                fields=["project"], condition=Q(status__in=["queued", "running"]), name="generation_one_at_a_time"
            ),
        ]
        indexes = [
            # projects.generations.queue.claim
            models.Index(fields=["created_at"], name="generation_claim_order", condition=Q(status=Status.QUEUED)),
            # projects.generations.queue.reap
            models.Index(fields=["lease_expires_at"], name="generation_lease", condition=Q(status=Status.RUNNING)),
            # builds.api.generations: an owner's generations, newest first
            models.Index(fields=["owner", "-created_at", "-id"], name="generation_newest"),
            # projects.admin.records: everyone's, newest first
            models.Index(fields=["-created_at", "-id", "status", "kind"], name="generation_of_all"),
            # projects.generations.queue: an owner's queued and running ones
            models.Index(fields=["owner", "status"], name="generation_by_owner"),
            # builds.fix_loop.settle_fix_loops: roots whose builds are still being repaired
            models.Index(
                fields=["finished_at"],
                name="generation_fix_open",
                condition=Q(status=Status.COMPLETED, auto_fix=True, root=None, fix_ending=""),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.project.name}"

    def record_transition(
        self, before: Status, status: Status, outcome: str, changes: Mapping[str, Any], now: datetime
    ) -> None:
        data = {"status": status} | ({"error": changes["error"]} if changes.get("error") else {})
        self.events.create(kind=GenerationEvent.Kind.STATUS, data=data)


class GenerationEvent(models.Model):
    """A change of a generation, written in the same transaction."""

    class Kind(models.TextChoices):
        STATUS = "status"
        STAGE = "stage"
        FILE = "file"

    generation = models.ForeignKey(Generation, on_delete=models.CASCADE, related_name="events", db_index=False)
    kind = models.CharField(max_length=8, choices=Kind)
    data = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["id"]
        # the events of one generation, in order
        indexes = [models.Index(fields=["generation", "id"], name="generation_event_in_order")]

    def __str__(self) -> str:
        return self.kind


class DraftFile(models.Model):
    """A file that a generation has written, until it becomes part of a revision."""

    generation = models.ForeignKey(Generation, on_delete=models.CASCADE, related_name="drafts", db_index=False)
    path = models.CharField(max_length=1000)
    content = models.TextField()
    size = models.PositiveIntegerField()  # in bytes

    class Meta:
        ordering = ["path"]
        constraints = [models.UniqueConstraint(fields=["generation", "path"], name="draft_path_once")]

    def __str__(self) -> str:
        return self.path


class Exchange(models.Model):
    """A request to a model and its result, without secrets. Written before it is sent."""

    id = models.UUIDField(primary_key=True, editable=False)
    generation = models.ForeignKey(Generation, on_delete=models.CASCADE, related_name="exchanges", db_index=False)
    stage = models.CharField(max_length=16)
    subject = models.CharField(max_length=1000, blank=True)
    attempt = models.PositiveIntegerField()
    model = models.CharField(max_length=100)
    messages = models.JSONField()
    answer = models.TextField(blank=True)
    input_tokens = models.PositiveBigIntegerField()
    output_tokens = models.PositiveBigIntegerField(default=0)
    is_estimated = models.BooleanField()
    cost = models.DecimalField(max_digits=20, decimal_places=10, default=0)
    seconds = models.FloatField(null=True)  # None: it is running, or its worker died
    error = models.CharField(max_length=40, blank=True)
    detail = models.CharField(max_length=1000, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["created_at", "id"]
        # the exchanges of one generation, in order
        indexes = [models.Index(fields=["generation", "created_at"], name="exchange_in_order")]

    def __str__(self) -> str:
        return f"{self.stage} {self.subject}".strip()


class TokensUsed(models.Model):
    """The tokens that an owner's generations used on one day (UTC), whatever their result."""

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="tokens_used", db_index=False
    )
    day = models.DateField()
    tokens = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "day"], name="tokens_used_once_a_day")]

    def __str__(self) -> str:
        return f"{self.tokens} on {self.day}"
