"""API: generations, from a prompt to a result."""

import re
from typing import Any, cast
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpResponse, HttpResponseBase
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.decorators import action
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from builds.api.documents.generations import (
    GenerationAnswer,
    GenerationDocument,
    GenerationSummary,
    with_generation_details,
)
from builds.api.requests import Config, GenerationsQuery, NewGeneration, Nothing, Retry
from builds.api.schema.openapi import Error
from builds.api.streams import event_stream_action, stream_events
from builds.live.feeds import queued_in_database
from builds.live.streams import generation_ended, generation_stream
from chef.jobs.models import Status
from chef.web.errors import error_response
from chef.web.idempotency import amend, key_of
from chef.web.streaming import defer_response
from projects.api.serializers import wire_names
from projects.api.views import ApiViewSet
from projects.engine.errors import Whose
from projects.generations import actions as generations
from projects.generations.actions import GenerationOptions
from projects.models import Generation

# The status of the answer when a generation fails while its client waits.
_STATUSES = {
    Whose.ENDPOINT: 502,
    Whose.MODEL: 502,
    Whose.INSTALLATION: 503,
    Whose.REQUEST: 422,
    Whose.LIMIT: 422,
    Whose.CANCELLED: 409,
}
ANSWERS = {
    201: OpenApiResponse(GenerationAnswer, description="The files exist, and their build is queued."),
    202: OpenApiResponse(GenerationAnswer, description="The files are still being written."),
    422: OpenApiResponse(
        Error,
        description="The engine failed because of the prompt or a limit; or this "
        "`Idempotency-Key` was used with another body.",
    ),
    502: OpenApiResponse(Error, description="The model or its endpoint gave no usable answer."),
}
PREFER = OpenApiParameter(
    "Prefer",
    str,
    OpenApiParameter.HEADER,
    description="`respond-async`: answer immediately with 202; `wait=10`: after at most 10 seconds.",
)
TODO_EXAMPLE = OpenApiExample(
    "A todo app",
    value={"prompt": "Build a todo app with React", "strategy": {"runtime": "node"}, "name": "todo"},
    request_only=True,
)


def answer_generation(request: Request, generation: Generation) -> Response:
    """201 with the build if it exists before the request's wait ends; else 202."""
    document = _answer_of(request, generation.pk).data
    seconds = _wait_seconds(request)
    response = Response(document, status=202, headers={"Location": document["links"]["self"]})
    if seconds:
        waiting = _DeferredAnswer(request, generation.pk, key_of(request), seconds)
        defer_response(request._request, waiting.answer)
    elif _prefers_async(request):
        response.headers["Preference-Applied"] = "respond-async"
    return response


def _prefers_async(request: Request) -> bool:
    prefer = request.headers.get("Prefer", "")
    return re.search(r"(?:^|[,;\s])respond-async(?:$|[,;\s])", prefer, re.IGNORECASE) is not None


def _wait_seconds(request: Request) -> float:
    """How long the request waits, in seconds: see RFC 7240."""
    if _prefers_async(request):
        return 0
    prefer = request.headers.get("Prefer", "")
    wait = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\b", prefer, re.IGNORECASE)
    return min(float(wait[1]), settings.GENERATE_WAIT) if wait else settings.GENERATE_WAIT


def _answer_of(request: Request, pk: UUID) -> GenerationAnswer:
    # Only the columns that the answer needs: many waits may end at the same moment.
    generation = Generation.objects.select_related("revision").prefetch_related("builds").defer("state").get(pk=pk)
    return GenerationAnswer(generation, context={"request": request})


class _DeferredAnswer:
    """A request whose answer waits for its generation to end, after its view has returned."""

    def __init__(self, request: Request, generation_id: UUID, key: str | None, seconds: float) -> None:
        self._request, self._generation_id, self._key = request, generation_id, key
        self._owner_id = cast(User, request.user).pk
        self._seconds = seconds

    async def answer(self) -> HttpResponse | None:
        if not await generation_ended(self._generation_id, seconds=self._seconds):
            # With the progress so far.
            return await queued_in_database(self._render, 202)
        return await queued_in_database(self._final)

    def _final(self) -> HttpResponse | None:
        generation = Generation.objects.only("status", "error").filter(pk=self._generation_id).first()
        if generation is None:
            return None  # deleted in the meantime
        error = generation.error
        if generation.status == Status.COMPLETED or error is None:
            response = self._render(201)
        else:
            detail = " ".join(error[part] for part in ("message", "subject", "detail", "hint") if error[part])
            status = _STATUSES[Whose(error["whose"])]
            kind = "server_error" if status >= 500 else "client_error"
            response = error_response(status, kind, error["code"], detail)
            response.headers["Location"] = _answer_of(self._request, self._generation_id).data["links"]["self"]
        if self._key:
            amend(self._owner_id, self._key, 202, response)
        return response

    def _render(self, status: int) -> HttpResponse:
        document = _answer_of(self._request, self._generation_id).data
        location = document["links"]["build"] if status == 201 else document["links"]["self"]
        content = JSONRenderer().render(document)
        return HttpResponse(content, status=status, content_type="application/json", headers={"Location": location})


def options_of(config: dict[str, Any]) -> GenerationOptions:
    return GenerationOptions(
        analysis=config["enable_analysis"],
        tests=config["enable_tests"],
        auto_fix=config["auto_fix"],
        max_tokens=config.get("max_tokens"),
    )


def validated_request(serializer: type[Any], request: Request) -> dict[str, Any]:
    """The validated body, with defaults for what `config` leaves out."""
    body = serializer(data=request.data)
    body.is_valid(raise_exception=True)
    data = dict(body.validated_data)
    if not data.get("config") and serializer is not Retry:
        config = Config(data={})
        config.is_valid(raise_exception=True)
        data["config"] = config.validated_data
    return data


class GenerateViewSet(ApiViewSet):
    """From a prompt to a project."""

    @extend_schema(
        operation_id="generate",
        request=NewGeneration,
        responses=ANSWERS,
        parameters=[PREFER],
        examples=[TODO_EXAMPLE],
    )
    def create(self, request: Request) -> Response:
        """Generate a project from a prompt, and build it. Waits for the files unless `Prefer` says otherwise."""
        data = validated_request(NewGeneration, request)
        generation = generations.request_generation(
            by=self.user,
            prompt=data["prompt"],
            name=data.get("name", ""),
            strategy=wire_names(data["strategy"]),
            options=options_of(data["config"]),
        )
        return answer_generation(request, generation)


class GenerationViewSet(ApiViewSet):
    """The user's generations."""

    lookup_value_converter = "uuid"

    def generations(self) -> QuerySet[Generation]:
        return with_generation_details(Generation.objects.filter(owner=self.user.pk))

    @extend_schema(
        operation_id="listGenerations", parameters=[GenerationsQuery], responses=GenerationSummary(many=True)
    )
    def list(self, request: Request) -> Response:
        """Generations, newest first; filtered by project."""
        query = GenerationsQuery.of(request)
        where = {"project": query["project"]} if "project" in query else {}
        return self.page(self.generations().filter(**where), GenerationSummary)

    @extend_schema(operation_id="getGeneration", responses=GenerationDocument)
    def retrieve(self, request: Request, pk: Any) -> Response:
        """One generation: stage, intent, plan, files so far, model, tokens, cost, error, and its repairs."""
        return self._document(pk)

    @extend_schema(
        operation_id="cancelGeneration",
        request=Nothing,
        responses={
            202: OpenApiResponse(GenerationDocument, description="Cancelled; no further requests go to the model."),
            200: OpenApiResponse(GenerationDocument, description="It had already ended: nothing was changed."),
        },
    )
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: Any) -> Response:
        """Cancel a generation. Cancelling again is harmless."""
        generation = self.get_or_404(self.generations(), pk=pk)
        is_cancelled_now = generations.cancel_generation(generation, by=self.user)
        return self._document(pk, status=202 if is_cancelled_now else 200)

    @extend_schema(operation_id="retryGeneration", request=Retry, responses=ANSWERS, parameters=[PREFER])
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: Any) -> Response:
        """Resume a failed or cancelled generation as a new one. Files written so far are kept."""
        generation = self.get_or_404(self.generations(), pk=pk)
        config = validated_request(Retry, request).get("config")
        options = options_of(config) if config else None
        return answer_generation(request, generations.retry_generation(generation, by=self.user, options=options))

    @event_stream_action(
        "watchGeneration",
        "status",
        "stage",
        "file",
        description="Live: an event for each change of status, and for each file written.",
    )
    def events(self, request: Request, pk: Any) -> HttpResponseBase:
        """Status, stage and files, live (server-sent events)."""
        return stream_events(request, generation_stream, self.get_or_404(self.generations(), pk=pk).pk)

    def _document(self, pk: Any, *, status: int = 200) -> Response:
        generation = self.get_or_404(self.generations(), pk=pk)
        return Response(GenerationDocument(generation, context={"request": self.request}).data, status=status)
