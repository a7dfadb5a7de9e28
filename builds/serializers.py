"""What goes out over the wire about builds: DRF serializers, so that the schema tells the same."""

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from builds.forecast import queue_documents
from builds.models import Artifact, Build, LogChunk, PhaseName, PhaseRun
from builds.runtimes import RUNTIMES
from builds.verdicts import VerdictClass
from projects import documents
from projects.documents import Document, StoredDocument
from projects.engine.errors import Whose
from projects.engine.fix_loop import Ending
from projects.jobs import Status
from projects.models import Exchange, Generation, Project

GENERATION_STATUSES = [documents.wire_status(status) for status in Status.values]


class ChoiceOrNull(serializers.ChoiceField):
    """One of the choices; null when there is none yet, which the database keeps as an empty text."""

    def __init__(self, choices: Any, **kwargs: Any) -> None:
        super().__init__(choices, allow_null=True, **kwargs)

    def to_representation(self, value: Any) -> Any:
        return value or None


class TextOrNull(serializers.CharField):
    """Null when there is none yet."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_null=True, **kwargs)

    def to_representation(self, value: Any) -> Any:
        return value or None


class Links(Document):
    """Where to go on from a build."""

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


class Accepted(Document):
    """A build that has been queued."""

    project_id = serializers.UUIDField()
    job_id = serializers.UUIDField(source="pk")
    status = serializers.ChoiceField(choices=Status.choices)
    message = serializers.SerializerMethodField()
    links = Links(source="*")

    def get_message(self, build: Build) -> str:
        return "The build is queued. Ask `links.status` how it is getting on."


class EtaDocument(StoredDocument):
    p50 = serializers.IntegerField(help_text="Seconds until it starts; as often less as more.")
    p90 = serializers.IntegerField(help_text="Seconds within which nine of ten such builds have started.")


class QueueDocument(StoredDocument):
    """Where a queued build stands."""

    position = serializers.IntegerField(min_value=1)
    eta_seconds = EtaDocument(allow_null=True)
    blocked_by = serializers.ChoiceField(
        choices=["owner_limit", "all_workers_busy", "no_workers", "backoff"], allow_null=True
    )


class StrategyDocument(StoredDocument):
    """The strategy that a build uses, once it has been resolved; `reasons` say why it is this one."""

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
        return _milliseconds(run)


class VerdictDocument(StoredDocument):
    """Why a build ended otherwise than completed. Codes are stable; the docs page lists them."""

    code = serializers.CharField()
    phase = serializers.CharField(allow_blank=True)
    message = serializers.CharField()
    evidence = serializers.ListField(
        child=serializers.CharField(), help_text="Lines of the log, the most telling first."
    )
    hint = serializers.CharField()
    retryable = serializers.BooleanField()
    exit_code = serializers.IntegerField(allow_null=True)

    def get_fields(self) -> dict[str, Any]:
        # `class` is no name for an attribute.
        kind = serializers.ChoiceField(choices=[kind.value for kind in VerdictClass])
        return {"class": kind, **super().get_fields()}


class UsageDocument(StoredDocument):
    """What the build used; null where it was over before it could be measured."""

    peak_memory_bytes = serializers.IntegerField(allow_null=True)
    cpu_seconds = serializers.FloatField(allow_null=True)
    disk_bytes = serializers.IntegerField(allow_null=True)
    log_bytes = serializers.IntegerField()


class EgressDocument(StoredDocument):
    """A host that installation asked for."""

    host = serializers.CharField()
    port = serializers.IntegerField()
    allowed = serializers.BooleanField()
    count = serializers.IntegerField()


class BuildDocument(Document):
    """A build: its state, and everything about how it got there."""

    project_id = serializers.UUIDField()
    job_id = serializers.UUIDField(source="pk")
    number = serializers.IntegerField(min_value=1)
    status = serializers.ChoiceField(choices=Status.choices)
    phase = ChoiceOrNull(PhaseName.choices)
    progress = serializers.IntegerField(min_value=0, max_value=100, help_text="Per cent.")
    attempt = serializers.IntegerField(source="fence")
    max_attempts = serializers.SerializerMethodField()
    priority = serializers.CharField(source="get_priority_display")
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
    phases = serializers.SerializerMethodField()
    verdict = VerdictDocument(allow_null=True)
    usage = serializers.SerializerMethodField()
    egress = EgressDocument(many=True)
    links = Links(source="*")

    def get_max_attempts(self, build: Build) -> int:
        return settings.MAX_ATTEMPTS

    @extend_schema_field(QueueDocument(allow_null=True))
    def get_queue(self, build: Build) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.context["queue"].get(build.pk)
        return found

    def get_duration_ms(self, build: Build) -> int | None:
        return _milliseconds(build)

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
    """Documents of builds that were read `with_details`; where they stand in the queue is asked once for all."""
    rows = list(builds)
    context = {"request": request, "queue": queue_documents(rows)}
    return list(BuildDocument(rows, many=True, context=context).data)


def build_document(request: HttpRequest, build: Build) -> dict[str, Any]:
    return build_documents(request, [build])[0]


def _milliseconds(row: Build | Generation | PhaseRun) -> int | None:
    if not row.started_at or not row.finished_at:
        return None
    return round((row.finished_at - row.started_at).total_seconds() * 1000)


class GenerationLinks(Document):
    """Where to go on from a generation; what is about its build is null until there is one."""

    self = serializers.URLField()
    events = serializers.URLField()
    project = serializers.URLField()
    build = serializers.URLField(allow_null=True)
    status = serializers.URLField(allow_null=True)
    logs = serializers.URLField(allow_null=True)
    artifacts = serializers.URLField(allow_null=True)
    page = serializers.URLField(allow_null=True)

    def to_representation(self, generation: Generation) -> dict[str, str | None]:
        build = first_build(generation)
        of_build = Links(build, context=self.context).data if build else {}
        return {
            "self": self.address("generation-detail", generation.pk),
            "events": self.address("generation-events", generation.pk),
            "project": self.address("project-detail", generation.project_id),
            "build": of_build.get("self"),
            **{name: of_build.get(name) for name in ("status", "logs", "artifacts", "page")},
        }


def first_build(generation: Generation) -> Build | None:
    """The build of what a generation has made; further ones repair it."""
    builds: list[Build] = list(generation.builds.all())
    return min(builds, key=lambda build: build.number, default=None)


class GenerationAnswer(Document):
    """What a prompt was answered with: the build when the files exist, else where to ask how far they are."""

    project_id = serializers.UUIDField()
    job_id = serializers.SerializerMethodField()
    generation_id = serializers.UUIDField(source="pk")
    status = serializers.SerializerMethodField()
    files_generated = serializers.SerializerMethodField()
    message = serializers.SerializerMethodField()
    links = GenerationLinks(source="*")

    @extend_schema_field(serializers.UUIDField(allow_null=True))
    def get_job_id(self, generation: Generation) -> Any:
        build = first_build(generation)
        return build.pk if build else None

    @extend_schema_field(serializers.ChoiceField(choices=[*Status.values, "generating"]))
    def get_status(self, generation: Generation) -> str:
        build = first_build(generation)
        return build.status if build else "generating"

    def get_files_generated(self, generation: Generation) -> int:
        return files_generated(generation)

    def get_message(self, generation: Generation) -> str:
        if first_build(generation):
            return generation.message
        return "The files are being written. Ask `links.self` how far they are, or listen to `links.events`."


def files_generated(generation: Generation) -> int:
    return generation.revision.file_count if generation.revision else generation.drafts.count()


class TokensDocument(StoredDocument):
    """What the model's endpoint reported; `estimated` as long as a part of it has not been."""

    input = serializers.IntegerField()
    output = serializers.IntegerField()
    total = serializers.IntegerField()
    limit = serializers.IntegerField(help_text="Repairs draw on that of the generation that they mend.")
    estimated = serializers.BooleanField()


class ConfigDocument(StoredDocument):
    """What the AI engine may do."""

    enable_analysis = serializers.BooleanField()
    enable_tests = serializers.BooleanField()
    auto_fix = serializers.BooleanField()
    max_tokens = serializers.IntegerField()


class GeneratedFile(StoredDocument):
    path = serializers.CharField()
    size = serializers.IntegerField(help_text="In bytes.")


class GenerationError(StoredDocument):
    """Why a generation ended without a revision. Codes are stable; the docs page lists them."""

    code = serializers.CharField()
    whose = serializers.ChoiceField(choices=[whose.value for whose in Whose])
    message = serializers.CharField()
    detail = serializers.CharField(allow_blank=True)
    subject = serializers.CharField(allow_blank=True, help_text="The file that it is about, if one.")
    hint = serializers.CharField()


class RepairDocument(Document):
    """One try to mend what a build failed of: a generation whose revision is built again."""

    generation_id = serializers.UUIDField(source="pk")
    job_id = serializers.SerializerMethodField()
    status = serializers.SerializerMethodField()
    revision = serializers.IntegerField(source="revision.number", default=None, allow_null=True)
    message = serializers.CharField(allow_blank=True)
    diff = serializers.CharField(allow_blank=True)
    tokens = serializers.SerializerMethodField()
    cost = serializers.SerializerMethodField()
    error = GenerationError(allow_null=True)

    @extend_schema_field(serializers.UUIDField(allow_null=True))
    def get_job_id(self, generation: Generation) -> Any:
        build = first_build(generation)
        return build.pk if build else None

    @extend_schema_field(serializers.ChoiceField(choices=GENERATION_STATUSES))
    def get_status(self, generation: Generation) -> str:
        return documents.wire_status(generation.status)

    @extend_schema_field(TokensDocument)
    def get_tokens(self, generation: Generation) -> dict[str, Any]:
        into, out = generation.input_tokens, generation.output_tokens
        told = {"input": into, "output": out, "total": into + out, "limit": generation.max_tokens}
        return {**told, "estimated": any(exchange.is_estimated for exchange in generation.exchanges.all())}

    def get_cost(self, generation: Generation) -> float:
        return float(generation.cost)


class FixDocument(Document):
    """How the repairs have ended, and the revision that stays, which came furthest."""

    ending = ChoiceOrNull([ending.value for ending in Ending], source="fix_ending")
    best_revision = serializers.IntegerField(source="best.number", default=None, allow_null=True)
    repairs = RepairDocument(many=True)


class GenerationSummary(RepairDocument):
    """A generation, as a list tells it."""

    project_id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=Generation.Kind.choices)
    stage = TextOrNull()
    prompt = serializers.CharField()
    config = serializers.SerializerMethodField()
    strategy = serializers.DictField(child=serializers.JSONField())
    provider = TextOrNull()
    model = TextOrNull()
    base_revision = serializers.IntegerField(source="base.number", default=None, allow_null=True)
    repair_of = serializers.UUIDField(source="root_id", allow_null=True, help_text="The generation that it mends.")
    retry_of = serializers.UUIDField(source="retry_of_id", allow_null=True)
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    duration_ms = serializers.SerializerMethodField()
    links = GenerationLinks(source="*")

    @extend_schema_field(ConfigDocument)
    def get_config(self, generation: Generation) -> dict[str, Any]:
        return {
            "enableAnalysis": generation.analysis,
            "enableTests": generation.tests,
            "autoFix": generation.auto_fix,
            "maxTokens": generation.max_tokens,
        }

    def get_duration_ms(self, generation: Generation) -> int | None:
        return _milliseconds(generation)


class GenerationDocument(GenerationSummary):
    """A generation: what was asked for, how far it is, and what it has come to."""

    intent = serializers.SerializerMethodField()
    plan = serializers.SerializerMethodField()
    files = serializers.SerializerMethodField()
    files_generated = serializers.SerializerMethodField()
    fix = FixDocument(source="*", help_text="What has become of it where its build failed.")

    @extend_schema_field(serializers.DictField(allow_null=True))
    def get_intent(self, generation: Generation) -> Any:
        return (generation.state or {}).get("intent")

    @extend_schema_field(serializers.DictField(allow_null=True))
    def get_plan(self, generation: Generation) -> Any:
        return (generation.state or {}).get("plan")

    @extend_schema_field(GeneratedFile(many=True))
    def get_files(self, generation: Generation) -> list[dict[str, Any]]:
        rows: Any = generation.revision.files if generation.revision else generation.drafts
        return list(rows.order_by("path").values("path", "size"))

    def get_files_generated(self, generation: Generation) -> int:
        return files_generated(generation)


def with_generation_details(rows: QuerySet[Generation]) -> QuerySet[Generation]:
    """Generations with what their documents are made of, but for the files."""
    exchanges = Exchange.objects.filter(is_estimated=True).only("generation_id", "is_estimated")
    repairs = Generation.objects.select_related("revision").order_by("created_at")
    builds = Build.objects.only("id", "number", "status", "project_id", "generation_id")
    of_each = (Prefetch("exchanges", exchanges), Prefetch("builds", builds))
    repairs = repairs.prefetch_related(*of_each)
    return rows.select_related("revision", "base", "best").prefetch_related(*of_each, Prefetch("repairs", repairs))


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
    """A project with its environment, `context["environment"]`. Of secrets, only the names."""

    env = serializers.SerializerMethodField()
    secrets = serializers.SerializerMethodField()

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
        return log_entry(chunk)


def log_entry(chunk: LogChunk) -> dict[str, Any]:
    """A LogEntry, made by hand: there are thousands of them, and each reader of a live log is given the same."""
    return {
        "sequence": chunk.sequence,
        "attempt": chunk.attempt,
        "phase": chunk.phase,
        "stream": chunk.stream,
        "timestamp": chunk.timestamp,
        "text": chunk.text,
    }


class LogPage(Document):
    project_id = serializers.UUIDField()
    job_id = serializers.UUIDField()
    entries = LogEntry(many=True)
    next_cursor = serializers.CharField(help_text="Send it as `after` to go on from here.")
    complete = serializers.BooleanField(help_text="Whether the build has ended and nothing comes after these entries.")
    truncated = serializers.BooleanField(help_text="Whether the log reached its limit; a mark says where.")


class ArtifactDocument(Document):
    """One output file."""

    name = serializers.CharField(help_text="Its path within the outputs.")
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
    """What a build of these files would do."""

    strategy = StrategyDocument()


class RuntimeDocument(Document):
    name = serializers.CharField()
    versions = serializers.ListField(child=serializers.CharField())
    default_version = serializers.CharField()


class LimitsDocument(StoredDocument):
    """What this installation allows: sizes in bytes, times in milliseconds."""

    files = serializers.IntegerField()
    file_bytes = serializers.IntegerField()
    project_bytes = serializers.IntegerField()
    path_bytes = serializers.IntegerField()
    path_depth = serializers.IntegerField()
    timeout = serializers.IntegerField()
    memory = serializers.IntegerField()
    cpus = serializers.FloatField()
    processes = serializers.IntegerField()
    log_bytes = serializers.IntegerField()
    artifacts = serializers.IntegerField()
    artifact_bytes = serializers.IntegerField()
    queued_per_owner = serializers.IntegerField()


class RuntimeList(Document):
    runtimes = RuntimeDocument(many=True)
    limits = LimitsDocument()


class WorkersHealth(StoredDocument):
    alive = serializers.IntegerField()
    busy = serializers.IntegerField()


class QueueHealth(StoredDocument):
    depth = serializers.IntegerField()
    oldest_seconds = serializers.IntegerField()


class HealthChecks(StoredDocument):
    """`ok`, or what is wrong."""

    database = serializers.CharField()
    redis = serializers.CharField()
    docker = serializers.CharField()
    storage = serializers.CharField()
    workers = WorkersHealth()
    queue = QueueHealth()


class HealthDocument(StoredDocument):
    status = serializers.ChoiceField(choices=["ok", "degraded", "down"])
    checks = HealthChecks()


class LiveDocument(StoredDocument):
    status = serializers.ChoiceField(choices=["ok"])
