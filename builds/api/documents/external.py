"""API documents for external builders."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from builds.api.documents.builds import StrategyDocument
from builds.models import Build
from chef.jobs.models import Status
from projects.api.documents import Document


class ArchiveLink(Document):
    """A URL of the source files as a tar.gz. The URL itself grants access: it needs neither token nor signature."""

    url = serializers.URLField()
    expires_at = serializers.DateTimeField()


class TakenDocument(Document):
    """A build that has been claimed."""

    # `context` has its `environment`, and its `archive` in the form of an ArchiveLink.

    job_id = serializers.UUIDField(source="pk")
    fence = serializers.IntegerField(help_text="Send it with every message about this build.")
    project_id = serializers.UUIDField()
    revision = serializers.IntegerField(source="revision.number")
    lease_expires_at = serializers.DateTimeField(help_text="After that another builder may claim it: send heartbeats.")
    strategy = StrategyDocument(
        source="plan",
        allow_null=True,
        help_text="How Chef would build it in its sandbox; null if unknown.",
    )
    dependencies = serializers.DictField(
        source="revision.dependencies",
        child=serializers.CharField(),
        help_text="Packages besides the manifest's.",
    )
    env = serializers.SerializerMethodField(help_text="Plain variables. Secrets are not included.")
    archive = serializers.SerializerMethodField()

    @extend_schema_field(serializers.DictField(child=serializers.CharField(allow_blank=True)))
    def get_env(self, build: Build) -> Any:
        return dict(self.context["environment"])

    @extend_schema_field(ArchiveLink)
    def get_archive(self, build: Build) -> Any:
        return ArchiveLink(self.context["archive"]).data


class KeptDocument(Document):
    """A build whose lease was renewed."""

    job_id = serializers.UUIDField()
    fence = serializers.IntegerField()
    lease_expires_at = serializers.DateTimeField()


class ReportedDocument(Document):
    """The build after a result was reported: `queued` if the builder failed and the build is retried."""

    job_id = serializers.UUIDField(source="pk")
    fence = serializers.IntegerField()
    status = serializers.ChoiceField(choices=[Status.COMPLETED.value, Status.FAILED.value, Status.QUEUED.value])
