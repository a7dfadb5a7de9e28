"""Validation of requests about builds: bodies and query parameters."""

from collections.abc import Collection
from typing import Any, cast

from django.conf import settings
from drf_spectacular.utils import OpenApiExample, extend_schema_serializer
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.request import Request

from builds.api.webhook_fields import EventsField, TimestampField, UrlField
from builds.logs.entries import CURSOR_PATTERN
from builds.models import TEST_EVENT, Delivery, EventName, PhaseName
from builds.runtimes.catalogue import RUNTIMES, resolve_version
from builds.site_names import MAX_SLUG
from builds.verdicts.evidence import VerdictClass
from chef.jobs.models import Status
from chef.web.errors import refusals_as_invalid
from projects.api.environment_fields import EnvField, SecretsField
from projects.api.serializers import ArchiveField, CamelSerializer, StrategySerializer, UploadSerializer
from projects.api.typed_fields import Choice, Flag, PromptField, Text, Whole
from projects.engine.request import WRITTEN_RUNTIMES

PRIORITIES = ["low", "normal", "high"]
QUEUES = ["local", "external"]
_QUEUE_HELP = "Whether this installation builds it, or an external builder if there is one."


def available_strategy(strategy: dict[str, Any], *, among: Collection[str] = tuple(RUNTIMES)) -> dict[str, Any]:
    """The strategy, if its runtime is one of these and its version is available. Raises ValidationError."""
    runtime = strategy.get("runtime")
    if runtime in RUNTIMES and runtime not in among:
        detail = f"The engine cannot write apps for the runtime {runtime!r}. Choose one of: {', '.join(among)}."
        raise ValidationError({"runtime": [ErrorDetail(detail, code="unknown_runtime")]})
    if strategy.get("version") and not runtime:
        detail = "A version needs a runtime: send `runtime` too."
        raise ValidationError({"runtime": [ErrorDetail(detail, code="required")]})
    if runtime:
        with refusals_as_invalid():
            resolve_version(runtime, strategy.get("version"))
    return strategy


class Sources(UploadSerializer):
    """A project's files, as JSON or as an archive, and how to build them. The body of `POST /v1/detect`."""

    def validate_strategy(self, strategy: dict[str, Any]) -> dict[str, Any]:
        return available_strategy(strategy)


_PAGE = {"files": {"index.html": "<h1>Hello</h1>"}}
SOURCES_EXAMPLE = OpenApiExample("A page", value=_PAGE, request_only=True, media_type="application/json")
PROJECT_EXAMPLES = [
    OpenApiExample(
        "A Node.js project",
        value={
            "name": "hello",
            "files": {
                "package.json": '{"scripts": {"build": "mkdir dist && node make.js > dist/index.html"}}',
                "make.js": 'console.log("<h1>Hello</h1>")',
            },
            "strategy": {"runtime": "node", "timeout": 120000},
            "env": {"MODE": "production"},
        },
        request_only=True,
        media_type="application/json",
    ),
    OpenApiExample("A page", value={"name": "page", **_PAGE}, request_only=True, media_type="application/json"),
]


def upload_schemas(body: type[Sources]) -> dict[str, type[serializers.Serializer[Any]]]:
    """For the schema: the body as JSON, or as a form with an archive and everything else in `options`."""

    def without(name: str, *fields: str) -> type[Sources]:
        return extend_schema_serializer(exclude_fields=fields)(type(name, (body,), {"__doc__": body.__doc__}))

    options = without(f"{body.__name__}Options", "archive", "files")
    form = type(
        f"{body.__name__}Form",
        (serializers.Serializer,),
        {"archive": ArchiveField(), "options": options(required=False)},
    )
    return {"application/json": without(body.__name__, "archive"), "multipart/form-data": form}


class NewRevision(Sources):
    """The body of `POST /v1/projects/{id}/revisions`."""

    priority = Choice(choices=PRIORITIES, default="normal")
    queue = Choice(choices=QUEUES, required=False, help_text=f"{_QUEUE_HELP} By default like the last build.")


class NewProject(NewRevision):
    """The body of `POST /v1/projects`."""

    name = Text(max_length=100, default="project")
    queue = Choice(choices=QUEUES, default="local", help_text=_QUEUE_HELP)
    env = EnvField(required=False)
    secrets = SecretsField(required=False)
    webhook_url = UrlField(required=False)


class ProjectChanges(CamelSerializer):
    """The body of `PATCH /v1/projects/{id}`. Named variables of `env` and `secrets` are set, or removed by null.

    `webhookUrl`: a URL that gets the results of builds from now on; null removes it.
    """

    name = Text(max_length=100, required=False)
    env = EnvField(required=False, allow_removal=True)
    secrets = SecretsField(required=False, allow_removal=True)
    webhook_url = UrlField(required=False, allow_null=True)


class NewBuild(CamelSerializer):
    """The body of `POST /v1/projects/{id}/builds`."""

    revision = Whole(min_value=1, max_value=2**31 - 1, required=False, help_text="By default the latest.")
    priority = Choice(choices=PRIORITIES, default="normal")
    queue = Choice(choices=QUEUES, required=False, help_text=f"{_QUEUE_HELP} By default like the last build.")


class Config(CamelSerializer):
    """Options of the AI engine."""

    enable_analysis = Flag(default=True, help_text="Whether to analyse the prompt before planning the files.")
    enable_tests = Flag(default=True, help_text="Whether to write tests.")
    auto_fix = Flag(default=True, help_text="Whether to repair a failed build, as long as repairs make progress.")
    max_tokens = Whole(
        min_value=1,
        max_value=settings.AI_MAX_TOKENS,
        required=False,
        help_text="The token limit, repairs included; by default the installation's maximum.",
    )


class Prompt(CamelSerializer):
    """The body of `POST /v1/projects/{id}/generate`."""

    prompt = PromptField()
    config = Config(default=dict)


class NewGeneration(Prompt):
    """The body of `POST /v1/generate`."""

    name = Text(max_length=100, required=False, help_text="By default, the beginning of the prompt.")
    strategy = StrategySerializer(default=dict)

    def validate_strategy(self, strategy: dict[str, Any]) -> dict[str, Any]:
        return available_strategy(strategy, among=WRITTEN_RUNTIMES)


class Retry(CamelSerializer):
    """The body of `POST /v1/generations/{id}/retry`."""

    config = Config(required=False, help_text="By default unchanged.")


class NewRelease(CamelSerializer):
    """The body of `POST /v1/projects/{id}/publish`."""

    job_id = serializers.UUIDField(required=False, help_text="By default, the last completed build.")
    slug = Text(
        max_length=MAX_SLUG,
        required=False,
        help_text="The site's name in its URL. By default the current one, or one made from the project's name.",
    )
    single_page = Flag(
        required=False,
        help_text="Whether paths without a file are answered with index.html. By default detected.",
    )


class NewPreview(CamelSerializer):
    """The body of `POST /v1/builds/{id}/preview`."""

    hours = Whole(min_value=1, max_value=720, required=False, help_text="How many hours the preview is available.")


class NewWebhook(CamelSerializer):
    """The body of `POST /v1/webhooks`."""

    url = UrlField()
    events = EventsField()
    project = serializers.UUIDField(
        required=False, allow_null=True, help_text="The project whose events it receives; by default all projects."
    )


class WebhookChanges(CamelSerializer):
    """The body of `PATCH /v1/webhooks/{id}`."""

    url = UrlField(required=False)
    events = EventsField(required=False)
    active = Flag(required=False, help_text="false disables it, true enables it again.")


class ReplayedRange(CamelSerializer):
    """The body of `POST /v1/webhooks/{id}/replay`: finished deliveries that were created in this period."""

    MISSED = "missed"

    status = Choice(
        choices=[Delivery.Status.DELIVERED.value, Delivery.Status.FAILED.value, MISSED],
        required=False,
        help_text="Only those with this status, or only those missed while the webhook was disabled; by default all.",
    )

    def get_fields(self) -> dict[str, Any]:
        # `from` is a keyword in Python.
        timestamps = {"from": TimestampField(), "to": TimestampField()}
        return {**timestamps, **super().get_fields()}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["from"] > attrs["to"]:
            detail = "The range ends before it begins: swap `from` and `to`."
            raise ValidationError({"to": [ErrorDetail(detail, code="out_of_range")]})
        return attrs


class Nothing(CamelSerializer):
    """A body without fields."""


class Query(CamelSerializer):
    """Query parameters: known ones are validated, others are refused."""

    @classmethod
    def of(cls, request: Request) -> dict[str, Any]:
        query = cls(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        return cast("dict[str, Any]", query.validated_data)


class Page(Query):
    limit = serializers.IntegerField(min_value=1, max_value=100, required=False)
    cursor = serializers.CharField(required=False)


class BuildsQuery(Page):
    status = serializers.ChoiceField(choices=Status.choices, required=False)
    project = serializers.UUIDField(required=False)
    runtime = serializers.ChoiceField(choices=list(RUNTIMES), required=False)
    verdict_class = serializers.ChoiceField(choices=[kind.value for kind in VerdictClass], required=False)


class GenerationsQuery(Page):
    project = serializers.UUIDField(required=False)


class WebhooksQuery(Page):
    project = serializers.UUIDField(required=False)


class DeliveriesQuery(Page):
    status = serializers.ChoiceField(choices=Delivery.Status.choices, required=False)
    event = serializers.ChoiceField(choices=[*EventName.values, TEST_EVENT], required=False)


class JobIdQuery(Query):
    job_id = serializers.UUIDField(required=False, help_text="A build of the project; by default the latest.")


class LogQuery(Query):
    after = serializers.RegexField(
        f"^{CURSOR_PATTERN}$", required=False, help_text="A `nextCursor`, or the `id` of a live event."
    )
    limit = serializers.IntegerField(min_value=1, max_value=1000, default=500)
    phase = serializers.ChoiceField(choices=PhaseName.choices, required=False)
    ansi = serializers.ChoiceField(
        choices=["keep", "strip"], default="keep", help_text="For plain text: whether to remove colours."
    )


class EventsQuery(Query):
    after = serializers.IntegerField(
        min_value=0, max_value=10**18 - 1, required=False, help_text="Continue after the event with this `id`."
    )


class ProjectLogQuery(LogQuery, JobIdQuery):
    pass
