"""API: builds."""

from typing import Any, ClassVar

from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from builds import actions
from builds.api.documents.builds import BuildDocument, build_document, build_documents
from builds.api.documents.releases import PreviewDocument
from builds.api.requests import BuildsQuery, LogQuery, NewPreview, Nothing
from builds.api.streams import LOG_RENDERERS, LOG_RESPONSES, answer_logs, event_stream_action, stream_events
from builds.live.streams import event_stream
from builds.models import Build
from builds.sites import publishing
from projects.api.views import ApiViewSet
from projects.models import ApiToken


def builds_of(request: Request) -> QuerySet[Build]:
    """All builds of the user, with what their documents need."""
    return Build.objects.filter(owner=request.user.pk).with_details()


def answer_build(request: Request, build: Build, *, status: int = 200) -> Response:
    """The build's document, read again with all its details."""
    document = build_document(request, get_object_or_404(builds_of(request), pk=build.pk))
    headers = {"Location": document["links"]["self"]} if status == 201 else {}
    return Response(document, status=status, headers=headers)


class BuildViewSet(ApiViewSet):
    """Builds of all the user's projects."""

    lookup_value_converter = "uuid"
    needed_scopes: ClassVar = {"preview": ApiToken.Scope.PUBLISH}

    @extend_schema(operation_id="listBuilds", parameters=[BuildsQuery], responses=BuildDocument(many=True))
    def list(self, request: Request) -> Response:
        """Builds, newest first; filter by status, project, runtime or verdict class."""
        query = BuildsQuery.of(request)
        where = {name: query[name] for name in ("status", "project", "runtime", "verdict_class") if name in query}
        shown = self.paginate_queryset(builds_of(request).filter(**where))
        return self.get_paginated_response(build_documents(request, shown or []))

    @extend_schema(operation_id="getBuild", responses=BuildDocument)
    def retrieve(self, request: Request, pk: Any) -> Response:
        """One build."""
        return Response(build_document(request, self.get_or_404(builds_of(request), pk=pk)))

    @extend_schema(
        operation_id="cancelBuild",
        request=Nothing,
        responses={
            202: OpenApiResponse(BuildDocument, description="Cancelled; its container is stopped within seconds."),
            200: OpenApiResponse(BuildDocument, description="It had already ended: nothing was changed."),
        },
    )
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: Any) -> Response:
        """Cancel a build, queued or running. Cancelling again is harmless."""
        build = self.get_or_404(builds_of(request), pk=pk)
        is_cancelled_now = actions.cancel_build(build, by=self.user)
        return answer_build(request, build, status=202 if is_cancelled_now else 200)

    @extend_schema(operation_id="retryBuild", request=Nothing, responses={201: BuildDocument})
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: Any) -> Response:
        """Build the same revision again, as a new build that names this one in `retryOf`."""
        build = self.get_or_404(builds_of(request), pk=pk)
        return answer_build(request, actions.retry_build(build, by=self.user), status=201)

    @extend_schema(operation_id="getBuildLogs", parameters=[LogQuery], responses=LOG_RESPONSES)
    @action(detail=True, renderer_classes=LOG_RENDERERS)
    def logs(self, request: Request, pk: Any) -> HttpResponseBase:
        """The log in the form that `Accept` asks for: JSON entries, plain text, or live events."""
        return answer_logs(request, self.get_or_404(builds_of(request), pk=pk), LogQuery.of(request))

    @extend_schema(operation_id="previewBuild", request=NewPreview, responses={201: PreviewDocument})
    @action(detail=True, methods=["post"])
    def preview(self, request: Request, pk: Any) -> Response:
        """Serve a completed build's output under an unguessable name for a limited time."""
        build = self.get_or_404(builds_of(request), pk=pk)
        body = NewPreview(data=request.data)
        body.is_valid(raise_exception=True)
        hours = body.validated_data.get("hours")
        preview = publishing.make_preview(
            build, by=self.user, seconds=hours * 3600 if hours else settings.PREVIEW_SECONDS
        )
        return Response(PreviewDocument(preview, context={"request": request}).data, status=201)

    @event_stream_action("watchBuild", "status", "phase", description="Live: an event for each change.")
    def events(self, request: Request, pk: Any) -> HttpResponseBase:
        """Status, phase and progress, live (server-sent events)."""
        return stream_events(request, event_stream, self.get_or_404(builds_of(request), pk=pk).pk)
