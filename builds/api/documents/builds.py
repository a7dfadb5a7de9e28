"""API documents about builds: DRF serializers, so that the schema always matches."""

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from builds.logs.entries import entry_document
from builds.models import Artifact, Build, LogChunk, PhaseName, PhaseRun, WebhookEndpoint
from builds.queue.forecast import queue_documents
from builds.runtimes.catalogue import RUNTIMES
from builds.verdicts.evidence import VerdictClass
from chef.jobs.models import Status
from projects.api import documents
from projects.api.described import Described
from projects.api.documents import ChoiceOrNull, Document, StoredDocument, TextOrNull, milliseconds
from projects.models import Project


class BuildLinks(Document):
    """Links of a build."""

    self = serializers.URLField()
    status = serializers.URLField()
    logs = serializers.URLField()
    events = serializers.URLField()
    artifacts = serializers.URLField()
    page = serializers.URLField()

    def to_representation(self, build: Build) -> dict[str, str]:
        query = f"?jobId={build.pk}"
        return {
            "self": self.address("build-detail", build.pk),
            "status": self.address("project-status", build.project_id) + query,
            "logs": self.address("project-logs", build.project_id) + query,
            "events": self.address("build-events", build.pk),
            "artifacts": self.address("project-artifacts", build.project_id) + query,
            "page": self.address("build-page", build.pk),
        }


class WebhookSecret(Described, serializers.Field[Any, Any, Any, Any]):
    """`context["webhook_secret"]`: shown once, when it is new."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(source="*", **kwargs)

    def schema(self) -> dict[str, Any]:
        description = "The signing secret of the webhook created by this request. It is not shown again."
        return {"type": ["string", "null"], "description": description}

    def to_representation(self, value: Any) -> str | None:
        secret: str | None = self.context.get("webhook_secret")
        return secret


class Accepted(Document):
    """A queued build. `context["webhook_secret"]`: the secret of the webhook created with its project."""

    project_id = serializers.UUIDField()
    job_id = serializers.UUIDField(source="pk")
    status = serializers.ChoiceField(choices=Status.choices)
    message = serializers.SerializerMethodField()
    webhook_secret = WebhookSecret()
    links = BuildLinks(source="*")

    def get_message(self, build: Build) -> str:
        return "The build is queued. Poll `links.status` for progress."


class EtaDocument(StoredDocument):
    p50 = serializers.IntegerField(help_text="Median seconds until it starts.")
    p90 = serializers.IntegerField(help_text="Seconds within which 90% of such builds start.")


class QueueDocument(StoredDocument):
    """A build's place in the queue."""

    position = serializers.IntegerField(min_value=1)
    eta_seconds = EtaDocument(allow_null=True)
    blocked_by = serializers.ChoiceField(
        choices=["owner_limit", "all_workers_busy", "no_workers", "backoff", "paused", "quarantined"],
        allow_null=True,
        help_text="`paused`: the operator has paused the queue. `quarantined`: the project is in quarantine until the "
        "operator releases it.",
    )


class StrategyDocument(StoredDocument):
    """The resolved strategy of a build; `reasons` explain it."""

    runtime = serializers.ChoiceField(choices=list(RUNTIMES))
    version = serializers.CharField()
    package_manager = serializers.CharField(allow_null=True)
    install_command = serializers.CharField(allow_null=True)
    build_command = serializers.CharField(allow_null=True)
    outputs = serializers.ListField(child=serializers.CharField())
    root_dir = serializers.CharField()
    timeout = serializers.IntegerField(allow_null=True, help_text="Milliseconds.")
    memory = serializers.IntegerField(allow_null=True, help_text="Bytes.")
    cpus = serializers.FloatField(allow_null=True)
    reasons = serializers.ListField(child=serializers.CharField())


class PhaseDocument(Document):
    name = serializers.ChoiceField(choices=PhaseName.choices)
    status = serializers.ChoiceField(choices=PhaseRun.Status.choices)
    started_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    duration_ms = serializers.SerializerMethodField()
    exit_code = serializers.IntegerField(allow_null=True)

    def get_duration_ms(self, run: PhaseRun) -> int | None:
        return milliseconds(run.started_at, run.finished_at)


class VerdictDocument(StoredDocument):
    """Why a build did not complete. Codes are stable; the docs page lists them."""

    code = serializers.CharField()
    phase = serializers.CharField(allow_blank=True)
    message = serializers.CharField()
    evidence = serializers.ListField(child=serializers.CharField(), help_text="Log lines, most relevant first.")
    hint = serializers.CharField()
    retryable = serializers.BooleanField()
    exit_code = serializers.IntegerField(allow_null=True)

    def get_fields(self) -> dict[str, Any]:
        # `class` is a keyword in Python.
        kind = serializers.ChoiceField(choices=[kind.value for kind in VerdictClass])
        return {"class": kind, **super().get_fields()}


class UsageDocument(StoredDocument):
    """What the build used; null if it ended before it could be measured."""

    peak_memory_bytes = serializers.IntegerField(allow_null=True)
    cpu_seconds = serializers.FloatField(allow_null=True)
    disk_bytes = serializers.IntegerField(allow_null=True)
    log_bytes = serializers.IntegerField()


class EgressDocument(StoredDocument):
    """A host that the installation phase connected to, or tried to."""

    host = serializers.CharField()
    port = serializers.IntegerField()
    allowed = serializers.BooleanField()
    count = serializers.IntegerField()


class BuildDocument(Document):
    """A build: its state and its history."""

    project_id = serializers.UUIDField()
    job_id = serializers.UUIDField(source="pk")
    number = serializers.IntegerField(min_value=1)
    status = serializers.ChoiceField(choices=Status.choices)
    phase = ChoiceOrNull(PhaseName.choices)
    progress = serializers.IntegerField(min_value=0, max_value=100, help_text="Per cent.")
    attempt = serializers.IntegerField(source="fence")
    max_attempts = serializers.SerializerMethodField()
    priority = serializers.CharField(source="get_priority_display")
    external = serializers.BooleanField(source="is_external", help_text="Whether an external builder runs it.")
    queue = serializers.SerializerMethodField()
    strategy = StrategyDocument(source="plan", allow_null=True)
    image = TextOrNull()
    revision = serializers.IntegerField(source="revision.number")
    retry_of = serializers.UUIDField(source="retry_of_id", allow_null=True)
    repair_of = serializers.UUIDField(source="repair_of_id", allow_null=True)
    generation_id = serializers.UUIDField(allow_null=True)
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    duration_ms = serializers.SerializerMethodField()
    pruned_at = serializers.DateTimeField(
        allow_null=True, help_text="When the operator removed its log and artifacts; null if they are still there."
    )
    phases = serializers.SerializerMethodField()
    verdict = VerdictDocument(allow_null=True)
    usage = serializers.SerializerMethodField()
    egress = EgressDocument(many=True)
    links = BuildLinks(source="*")

    def get_max_attempts(self, build: Build) -> int:
        return settings.MAX_ATTEMPTS

    @extend_schema_field(QueueDocument(allow_null=True))
    def get_queue(self, build: Build) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.context["queue"].get(build.pk)
        return found

    def get_duration_ms(self, build: Build) -> int | None:
        return milliseconds(build.started_at, build.finished_at)

    @extend_schema_field(PhaseDocument(many=True))
    def get_phases(self, build: Build) -> Any:
        runs: Iterable[PhaseRun] = next(
            (attempt.phases.all() for attempt in build.attempts.all() if attempt.number == build.fence), []
        )
        return PhaseDocument(runs, many=True, context=self.context).data

    @extend_schema_field(UsageDocument)
    def get_usage(self, build: Build) -> dict[str, Any]:
        return UsageDocument({**build.usage, "logBytes": build.log_bytes}).data


def build_documents(request: HttpRequest, builds: Iterable[Build]) -> list[dict[str, Any]]:
    """Documents of builds that were read `with_details`; the queue is read once for all of them."""
    rows = list(builds)
    context = {"request": request, "queue": queue_documents(rows)}
    return list(BuildDocument(rows, many=True, context=context).data)


def build_document(request: HttpRequest, build: Build) -> dict[str, Any]:
    return build_documents(request, [build])[0]


class LatestBuild(Document):
    job_id = serializers.UUIDField(source="pk")
    number = serializers.IntegerField()
    status = serializers.ChoiceField(choices=Status.choices)
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)


class ProjectDocument(documents.ProjectDocument):
    """A project with its latest build. `context["latest"]` maps the project's id to that build."""

    latest_build = serializers.SerializerMethodField()

    @extend_schema_field(LatestBuild(allow_null=True))
    def get_latest_build(self, project: Project) -> dict[str, Any] | None:
        build = self.context["latest"].get(project.pk)
        return LatestBuild(build).data if build else None


class ProjectDetail(ProjectDocument):
    """A project with its environment, `context["environment"]`. For secrets, only the names."""

    webhook_url = serializers.SerializerMethodField()
    webhook_secret = WebhookSecret()
    env = serializers.SerializerMethodField()
    secrets = serializers.SerializerMethodField()

    @extend_schema_field(serializers.URLField(allow_null=True))
    def get_webhook_url(self, project: Project) -> str | None:
        endpoints = WebhookEndpoint.objects.filter(project=project, origin=WebhookEndpoint.Origin.PROJECT)
        return endpoints.values_list("url", flat=True).first()

    @extend_schema_field(serializers.DictField(child=serializers.CharField(allow_blank=True, allow_null=True)))
    def get_env(self, project: Project) -> Any:
        return self.context["environment"]["env"]

    @extend_schema_field(documents.SecretDocument(many=True))
    def get_secrets(self, project: Project) -> Any:
        return self.context["environment"]["secrets"]


class LogEntry(Document):
    """Consecutive output of one stream: one or more lines, in the order of `sequence`."""

    sequence = serializers.IntegerField()
    attempt = serializers.IntegerField()
    phase = serializers.ChoiceField(choices=PhaseName.choices)
    stream = serializers.ChoiceField(choices=LogChunk.Stream.choices)
    timestamp = serializers.DateTimeField()
    text = serializers.CharField(allow_blank=True)

    def to_representation(self, chunk: LogChunk) -> dict[str, Any]:
        return entry_document(chunk)


class LogPage(Document):
    project_id = serializers.UUIDField()
    job_id = serializers.UUIDField()
    entries = LogEntry(many=True)
    next_cursor = serializers.CharField(help_text="Send it as `after` to continue from here.")
    complete = serializers.BooleanField(help_text="Whether the build has ended and these are the last entries.")
    truncated = serializers.BooleanField(help_text="Whether the log was cut at its limit; a line in it says where.")


class ArtifactDocument(Document):
    """One output file."""

    name = serializers.CharField(help_text="The path within the outputs.")
    size = serializers.IntegerField(help_text="In bytes.")
    sha256 = serializers.CharField(help_text="In hexadecimal.")
    content_type = serializers.CharField()
    url = serializers.SerializerMethodField()

    @extend_schema_field(serializers.URLField)
    def get_url(self, artifact: Artifact) -> str:
        build: Build = self.context["build"]
        return self.address("project-artifact", build.project_id, artifact.name) + f"?jobId={build.pk}"


class ArtifactList(Document):
    project_id = serializers.UUIDField()
    job_id = serializers.UUIDField()
    artifacts = ArtifactDocument(many=True)
    total_size = serializers.IntegerField(help_text="In bytes.")


class Detected(Document):
    """The strategy that a build of these files would use."""

    strategy = StrategyDocument()
