"""API documents about generations and the builds of their revisions."""

from typing import Any

from django.db.models import Prefetch, QuerySet
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from builds.api.documents.builds import BuildLinks
from builds.models import Build
from chef.jobs.models import Status
from projects.api.documents import ChoiceOrNull, Document, StoredDocument, TextOrNull, milliseconds, wire_status
from projects.engine.errors import Whose
from projects.engine.repairs.decisions import Ending
from projects.models import Exchange, Generation

GENERATION_STATUSES = [wire_status(status) for status in Status.values]


class GenerationLinks(Document):
    """Links of a generation; those of its build are null until there is one."""

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
        build_links = BuildLinks(build, context=self.context).data if build else {}
        return {
            "self": self.address("generation-detail", generation.pk),
            "events": self.address("generation-events", generation.pk),
            "project": self.address("project-detail", generation.project_id),
            "build": build_links.get("self"),
            **{name: build_links.get(name) for name in ("status", "logs", "artifacts", "page")},
        }


def first_build(generation: Generation) -> Build | None:
    """The build of a generation's revision; later ones are repairs."""
    builds: list[Build] = list(generation.builds.all())
    return min(builds, key=lambda build: build.number, default=None)


class GenerationAnswer(Document):
    """The answer to a prompt: the build if the files exist, else links for progress."""

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
        return "The files are being written. Poll `links.self` for progress, or follow `links.events`."


def files_generated(generation: Generation) -> int:
    return generation.revision.file_count if generation.revision else generation.drafts.count()


class TokensDocument(StoredDocument):
    """Tokens that the model's endpoint reported; `estimated` if a part was not reported."""

    input = serializers.IntegerField()
    output = serializers.IntegerField()
    total = serializers.IntegerField()
    limit = serializers.IntegerField(help_text="Repairs share the limit of the generation that they repair.")
    estimated = serializers.BooleanField()


class ConfigDocument(StoredDocument):
    """Options of the AI engine."""

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
    subject = serializers.CharField(allow_blank=True, help_text="The file that it is about, if any.")
    hint = serializers.CharField()


class RepairDocument(Document):
    """One try to repair a failed build: a generation whose revision is built again."""

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
        return wire_status(generation.status)

    @extend_schema_field(TokensDocument)
    def get_tokens(self, generation: Generation) -> dict[str, Any]:
        into, out = generation.input_tokens, generation.output_tokens
        tokens = {"input": into, "output": out, "total": into + out, "limit": generation.max_tokens}
        return {**tokens, "estimated": any(exchange.is_estimated for exchange in generation.exchanges.all())}

    def get_cost(self, generation: Generation) -> float:
        return float(generation.cost)


class FixDocument(Document):
    """How the repairs ended, and the best revision, which is kept."""

    ending = ChoiceOrNull([ending.value for ending in Ending], source="fix_ending")
    best_revision = serializers.IntegerField(source="best.number", default=None, allow_null=True)
    repairs = RepairDocument(many=True)


class GenerationSummary(RepairDocument):
    """A generation in a list."""

    project_id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=Generation.Kind.choices)
    stage = TextOrNull()
    prompt = serializers.CharField()
    config = serializers.SerializerMethodField()
    strategy = serializers.DictField(child=serializers.JSONField())
    provider = TextOrNull()
    model = TextOrNull()
    base_revision = serializers.IntegerField(source="base.number", default=None, allow_null=True)
    repair_of = serializers.UUIDField(source="root_id", allow_null=True, help_text="The generation that it repairs.")
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
        return milliseconds(generation.started_at, generation.finished_at)


class GenerationDocument(GenerationSummary):
    """A generation: the request, its progress and its result."""

    intent = serializers.SerializerMethodField()
    plan = serializers.SerializerMethodField()
    files = serializers.SerializerMethodField()
    files_generated = serializers.SerializerMethodField()
    fix = FixDocument(source="*", help_text="The repairs after a failed build.")

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
    """Generations with everything that their documents need except the files."""
    exchanges = Exchange.objects.filter(is_estimated=True).only("generation_id", "is_estimated")
    repairs = Generation.objects.select_related("revision").order_by("created_at")
    builds = Build.objects.only("id", "number", "status", "project_id", "generation_id")
    related = (Prefetch("exchanges", exchanges), Prefetch("builds", builds))
    repairs = repairs.prefetch_related(*related)
    return rows.select_related("revision", "base", "best").prefetch_related(*related, Prefetch("repairs", repairs))
