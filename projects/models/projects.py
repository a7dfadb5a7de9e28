"""Projects, and the immutable snapshots of their source files."""

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone


class Project(models.Model):
    """What a user owns: a name, revisions, builds."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="projects")
    name = models.CharField(max_length=100)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-created_at"]
        # builds.api.projects.ProjectViewSet: one owner's projects, newest first
        indexes = [models.Index(fields=["owner", "-created_at", "-id"], name="project_by_owner")]

    def __str__(self) -> str:
        return self.name


class Quarantine(models.Model):
    """A project in quarantine: nothing of it is built or generated until staff release it."""

    project = models.OneToOneField(Project, on_delete=models.CASCADE, primary_key=True, related_name="quarantine")
    reason = models.CharField(max_length=500)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"quarantine of {self.project_id}"


class Revision(models.Model):
    """An immutable snapshot of source files, with the strategy request for building them."""

    class Origin(models.TextChoices):
        UPLOAD = "upload"
        GENERATION = "generation"
        REPAIR = "repair"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="revisions")
    number = models.PositiveIntegerField()
    origin = models.CharField(max_length=16, choices=Origin, default=Origin.UPLOAD)
    # The strategy request in the API's form (installCommand, outputs, ...); what is absent is detected.
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
    """Files uploaded through a page that are not part of a project yet: see projects.files.uploads."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="uploads")
    # The project whose next revision they become; None: a new project.
    project = models.ForeignKey(Project, on_delete=models.CASCADE, null=True, related_name="uploads")
    name = models.CharField(max_length=100)  # suggested name of a new project
    packed = models.BinaryField()  # a tar.gz of the files
    file_count = models.PositiveIntegerField()
    total_bytes = models.PositiveBigIntegerField()
    left_out = models.JSONField(default=dict)  # how many files were ignored, by folder
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        # projects.files.uploads.forget_old_uploads
        indexes = [models.Index(fields=["created_at"], name="upload_by_age")]

    def __str__(self) -> str:
        return self.name


class EnvironmentVariable(models.Model):
    """An environment variable of the project's builds. A secret's value is never shown again and is masked in logs."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="variables")
    name = models.CharField(max_length=100)
    sealed_value = models.TextField()  # see chef.storage.sealing
    is_secret = models.BooleanField(default=False)
    # Plain variables go to both phases; a secret goes to installation only if that was requested.
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
