"""Projects and the immutable snapshots of their source files. Knows nothing of how they are built."""

import uuid

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from rest_framework_api_key.models import AbstractAPIKey


class Project(models.Model):
    """What a user owns: a name, revisions, builds."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="projects")
    name = models.CharField(max_length=100)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-created_at"]
        # projects.api.ProjectViewSet: one owner's projects, newest first
        indexes = [models.Index(fields=["owner", "-created_at", "-id"], name="project_by_owner")]

    def __str__(self) -> str:
        return self.name


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


class EnvironmentVariable(models.Model):
    """A variable that the project's builds are given. A secret's value is never shown again, and is masked in logs."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="variables")
    name = models.CharField(max_length=100)
    sealed_value = models.TextField()  # see projects.sealing
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

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="idempotency_keys")
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
            models.CheckConstraint(
                condition=Q(status_code__isnull=True, locked_until__isnull=False)
                | Q(status_code__isnull=False, locked_until__isnull=True),
                name="idempotency_answered_iff_unlocked",
            ),
        ]
        # projects.idempotency: those that are too old
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
