"""Projects and the immutable snapshots of their source files. Knows nothing of how they are built."""

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from rest_framework_api_key.models import AbstractAPIKey

from chef.jobs.models import Job, JobQuerySet, Status, job_constraints


class Project(models.Model):
    """What a user owns: a name, revisions, builds."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="projects")
    name = models.CharField(max_length=100)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-created_at"]
        # projects.api.views.ProjectViewSet: one owner's projects, newest first
        indexes = [models.Index(fields=["owner", "-created_at", "-id"], name="project_by_owner")]

    def __str__(self) -> str:
        return self.name


class Quarantine(models.Model):
    """Of a project: nothing of it is built or generated until staff release it. No row, no quarantine."""

    project = models.OneToOneField(Project, on_delete=models.CASCADE, primary_key=True, related_name="quarantine")
    reason = models.CharField(max_length=500)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"quarantine of {self.project_id}"


class Revision(models.Model):
    """A snapshot of source files with the wishes for building them; never changed once made."""

    class Origin(models.TextChoices):
        UPLOAD = "upload"
        GENERATION = "generation"
        REPAIR = "repair"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="revisions")
    number = models.PositiveIntegerField()
    origin = models.CharField(max_length=16, choices=Origin, default=Origin.UPLOAD)
    # What the user asked for, in the API's own words (installCommand, outputs, ...); absent means detected.
    strategy = models.JSONField(default=dict)
    dependencies = models.JSONField(default=dict)
    file_count = models.PositiveIntegerField()
    total_bytes = models.PositiveBigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="revision_number_once"),
            models.CheckConstraint(condition=Q(number__gte=1), name="revision_number_from_one"),
        ]

    def __str__(self) -> str:
        return f"{self.project.name} r{self.number}"


class SourceFile(models.Model):
    """One file of a revision: a safe relative path and its bytes."""

    revision = models.ForeignKey(Revision, on_delete=models.CASCADE, related_name="files")
    path = models.CharField(max_length=1000)
    content = models.BinaryField()
    size = models.PositiveIntegerField()
    executable = models.BooleanField(default=False)

    class Meta:
        ordering = ["path"]
        constraints = [models.UniqueConstraint(fields=["revision", "path"], name="source_path_once")]

    def __str__(self) -> str:
        return self.path


class Upload(models.Model):
    """Files that came through a page and are not a part of a project yet: see projects.files.uploads."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="uploads")
    # Whose next revision they are to be; None: a new project's first.
    project = models.ForeignKey(Project, on_delete=models.CASCADE, null=True, related_name="uploads")
    name = models.CharField(max_length=100)  # what a new project may be called
    packed = models.BinaryField()  # a tar.gz of the files
    file_count = models.PositiveIntegerField()
    total_bytes = models.PositiveBigIntegerField()
    left_out = models.JSONField(default=dict)  # how many files were left out, by the folder they were in
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        # projects.files.uploads.forget_old_uploads
        indexes = [models.Index(fields=["created_at"], name="upload_by_age")]

    def __str__(self) -> str:
        return self.name


class Generation(Job):
    """One run of the AI engine: a prompt in, a revision out."""

    class Kind(models.TextChoices):
        NEW = "new"  # a project from a prompt
        EDIT = "edit"  # a change to a project, from a prompt
        REPAIR = "repair"  # a change that shall make a failed build succeed

    # Where `db_index` is off, another index begins with the column.
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="generations")
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="generations", db_index=False
    )
    kind = models.CharField(max_length=8, choices=Kind)
    prompt = models.TextField()
    # What the user asked for, in the API's own words, like a revision's.
    strategy = models.JSONField(default=dict)
    analysis = models.BooleanField(default=True)
    tests = models.BooleanField(default=True)
    auto_fix = models.BooleanField(default=True)
    max_tokens = models.PositiveIntegerField()  # repairs draw on those of their root
    base = models.ForeignKey(Revision, on_delete=models.CASCADE, null=True, related_name="+")  # what is changed
    retry_of = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, related_name="retries")
    # Of a repair: the generation whose app it repairs, and why its build failed: projects.generations.actions.Failed.
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
    # Of a root whose builds are repaired: why there is no further try, and the revision that came furthest.
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
            # Two at once would both change what the other has not seen.
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
            # builds.fix_loop.settle: roots whose builds are still being repaired
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
    """A change of a generation, written with it in one transaction."""

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
    """A file that a generation has written, until it is a part of a revision."""

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
    """A request to a model and what came of it, without secrets. Written before it is sent: see projects.engine."""

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
    seconds = models.FloatField(null=True)  # None: nothing has come of it, or its worker has died before it did
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
    """What an owner's generations have used on one day (UTC), whatever has become of them."""

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="tokens_used", db_index=False
    )
    day = models.DateField()
    tokens = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "day"], name="tokens_used_once_a_day")]

    def __str__(self) -> str:
        return f"{self.tokens} on {self.day}"


class EnvironmentVariable(models.Model):
    """A variable that the project's builds are given. A secret's value is never shown again, and is masked in logs."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="variables")
    name = models.CharField(max_length=100)
    sealed_value = models.TextField()  # see chef.storage.sealing
    is_secret = models.BooleanField(default=False)
    # Plain variables are given to both phases, a secret to installation only where it was asked for by name.
    for_installation = models.BooleanField(default=False)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="variable_name_once"),
            models.CheckConstraint(
                condition=Q(is_secret=True) | Q(for_installation=True), name="variable_plain_is_open"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class IdempotencyKey(models.Model):
    """A POST that may be sent twice: what was asked, and, once it was done, what was answered."""

    # Null where a signature is the authority: the key is the message's id then.
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True, blank=True, related_name="idempotency_keys"
    )
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64)  # of method, path and body
    created_at = models.DateTimeField(default=timezone.now)
    # Until when the request that came first may be under way; afterwards its process is taken for dead.
    locked_until = models.DateTimeField(null=True, blank=True)
    status_code = models.PositiveSmallIntegerField(null=True, blank=True)
    answer = models.BinaryField(default=b"")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["owner", "key"], name="idempotency_key_once"),
            models.UniqueConstraint(fields=["key"], condition=Q(owner=None), name="idempotency_message_once"),
            models.CheckConstraint(
                condition=Q(status_code__isnull=True, locked_until__isnull=False)
                | Q(status_code__isnull=False, locked_until__isnull=True),
                name="idempotency_answered_iff_unlocked",
            ),
        ]
        # projects.api.idempotency: those that are too old
        indexes = [models.Index(fields=["created_at"], name="idempotency_by_age")]

    def __str__(self) -> str:
        return self.key


class ApiToken(AbstractAPIKey):
    """A bearer token: kept as a hash, named, expiring, revocable, bound to its owner and a scope."""

    class Scope(models.TextChoices):
        # Each includes the one before.
        READ = "read"
        WRITE = "write"
        PUBLISH = "publish"

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    scope = models.CharField(max_length=8, choices=Scope, default=Scope.WRITE)

    class Meta(AbstractAPIKey.Meta):
        verbose_name = "API token"
        verbose_name_plural = "API tokens"
        constraints = [
            models.CheckConstraint(condition=Q(scope__in=["read", "write", "publish"]), name="token_scope_known"),
            models.CheckConstraint(
                condition=Q(expiry_date__isnull=True) | Q(expiry_date__gt=F("created")), name="token_expires_later"
            ),
        ]

    def allows(self, scope: "ApiToken.Scope") -> bool:
        order = list(ApiToken.Scope)
        return order.index(ApiToken.Scope(self.scope)) >= order.index(scope)
