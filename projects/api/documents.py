"""API documents about projects and revisions: DRF serializers, so that the schema always matches."""

from datetime import datetime
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from chef.jobs.models import Status
from projects.api.serializers import CamelSerializer
from projects.models import Generation, Project, Revision, SourceFile


def address(request: HttpRequest, name: str, *args: Any) -> str:
    """An absolute URL: under CHEF_URL if that is set, else under the host that the client used."""
    path = reverse(name, args=args)
    return f"{settings.CHEF_URL}{path}" if settings.CHEF_URL else request.build_absolute_uri(path)


class Document(CamelSerializer):
    """A response document. `context["request"]` is the request that its links are made for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, read_only=True, **kwargs)

    def address(self, name: str, *args: Any) -> str:
        return address(self.context["request"], name, *args)


class StoredDocument(Document):
    """A part that is stored as JSON in the API's form; missing fields are null."""

    def to_representation(self, instance: dict[str, Any]) -> dict[str, Any]:
        return {str(name): instance.get(str(name)) for name in self.fields}


class ChoiceOrNull(serializers.ChoiceField):
    """One of the choices; null if there is none yet, which the database stores as an empty text."""

    def __init__(self, choices: Any, **kwargs: Any) -> None:
        super().__init__(choices, allow_null=True, **kwargs)

    def to_representation(self, value: Any) -> Any:
        return value or None


class TextOrNull(serializers.CharField):
    """A text; null if there is none yet."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_null=True, **kwargs)

    def to_representation(self, value: Any) -> Any:
        return value or None


def milliseconds(began: datetime | None, ended: datetime | None) -> int | None:
    """The duration; None until it has ended."""
    return round((ended - began).total_seconds() * 1000) if began and ended else None


WIRE_STATUSES = {Status.RUNNING: "generating"}


def wire_status(status: str) -> str:
    """A generation's status in the API."""
    return WIRE_STATUSES.get(Status(status), status) if status else status


class ProjectLinks(Document):
    self = serializers.URLField()
    status = serializers.URLField()
    revisions = serializers.URLField()
    builds = serializers.URLField()

    def to_representation(self, project: Project) -> dict[str, str]:
        return {
            "self": self.address("project-detail", project.pk),
            "status": self.address("project-status", project.pk),
            "revisions": self.address("project-revisions", project.pk),
            "builds": self.address("build-list") + f"?project={project.pk}",
        }


class ProjectDocument(Document):
    """A project in a list."""

    project_id = serializers.UUIDField(source="pk")
    name = serializers.CharField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    links = ProjectLinks(source="*")


class SecretDocument(Document):
    """A secret that is set. Its value is never returned."""

    name = serializers.CharField()
    installation = serializers.BooleanField(help_text="Whether the installation phase gets it too.")


class RevisionLinks(Document):
    self = serializers.URLField()
    archive = serializers.URLField()

    def to_representation(self, revision: Revision) -> dict[str, str]:
        place = (revision.project_id, revision.number)
        return {"self": self.address("project-revision", *place), "archive": self.address("project-archive", *place)}


class RevisionDocument(Document):
    """A snapshot of source files, in a list."""

    number = serializers.IntegerField(min_value=1)
    origin = serializers.ChoiceField(choices=Revision.Origin.choices)
    file_count = serializers.IntegerField()
    total_bytes = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    links = RevisionLinks(source="*")


class SourceFileDocument(Document):
    path = serializers.CharField()
    size = serializers.IntegerField(help_text="In bytes.")
    executable = serializers.BooleanField()
    url = serializers.SerializerMethodField()

    @extend_schema_field(serializers.URLField)
    def get_url(self, file: SourceFile) -> str:
        revision = self.context["revision"]
        return self.address("project-file", revision.project_id, revision.number, file.path)


class RevisionDetail(RevisionDocument):
    """A snapshot with its strategy request and the list of its files."""

    strategy = serializers.DictField(child=serializers.JSONField())
    dependencies = serializers.DictField(child=serializers.CharField())
    generation_id = serializers.SerializerMethodField()
    files = serializers.SerializerMethodField()

    @extend_schema_field(
        serializers.UUIDField(allow_null=True, help_text="The generation that wrote it, with the diff.")
    )
    def get_generation_id(self, revision: Revision) -> Any:
        return Generation.objects.filter(revision=revision).values_list("pk", flat=True).first()

    @extend_schema_field(SourceFileDocument(many=True))
    def get_files(self, revision: Revision) -> Any:
        rows = revision.files.defer("content").order_by("path")
        return SourceFileDocument(rows, many=True, context={**self.context, "revision": revision}).data
