"""The API's doors: parse, call one action, render."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import UUID

from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.http import Http404, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.http import content_disposition_header
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet

from builds import actions, health, logs, serializers
from builds.models import Artifact, Build, PhaseName, Priority, Status
from builds.runtimes import UnknownRuntime, resolve_version
from projects.serializers import UploadSerializer, camel

PIECE_BYTES = 256 * 1024


class BuildUploadSerializer(UploadSerializer):
    """An upload whose strategy names a runtime that this installation has."""

    def validate_strategy(self, strategy: dict[str, Any]) -> dict[str, Any]:
        runtime = strategy.get("runtime")
        if strategy.get("version") and not runtime:
            detail = "A version alone says little: name the runtime too."
            raise ValidationError({"runtime": [ErrorDetail(detail, code="required")]})
        try:
            if runtime:
                resolve_version(runtime, strategy.get("version"))
        except UnknownRuntime as unknown:
            field = "runtime" if unknown.code == "unknown_runtime" else "version"
            raise ValidationError({field: [ErrorDetail(str(unknown), code=unknown.code)]}) from unknown
        return strategy


class AnyAccept(DefaultContentNegotiation):
    """Answers whatever is asked for: these paths choose among their forms themselves."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class ProjectViewSet(GenericViewSet[Build]):
    """Projects as sources of builds: submit one, and read its latest build, or that of `?jobId=`."""

    serializer_class = BuildUploadSerializer
    content_negotiation_class = AnyAccept

    def create(self, request: Request) -> Response:
        upload = self.get_serializer(data=request.data)
        upload.is_valid(raise_exception=True)
        data = upload.validated_data
        build = actions.submit_project(
            by=cast(User, request.user),  # HasScope lets nobody else in
            name=data["name"],
            priority=Priority[data["priority"].upper()],
            files=data["files"],
            dependencies=data["dependencies"],
            strategy={camel(name): value for name, value in data["strategy"].items()},
        )
        return Response(serializers.accepted(request, build), status=201)

    def status(self, request: Request, pk: str) -> Response:
        return Response(serializers.build_document(request, self._build(pk)))

    def logs(self, request: Request, pk: str) -> HttpResponseBase:
        build = self._build(pk)
        if "text/plain" in request.headers.get("Accept", ""):
            text = logs.text_of(build.pk, build.fence)
            if request.query_params.get("ansi") == "strip":
                text = re.sub(r"\x1b\[[0-9;:]*m", "", text)
            return HttpResponse(text, content_type="text/plain; charset=utf-8")
        return Response(self._log_page(request, build))

    def _log_page(self, request: Request, build: Build) -> dict[str, Any]:
        query = request.query_params
        phase = query.get("phase", "")
        if phase and phase not in PhaseName.values:
            detail = f"There is no phase {phase[:40]!r}: use one of {', '.join(PhaseName.values)}."
            raise ValidationError({"phase": [ErrorDetail(detail, code="invalid_choice")]})
        try:
            chunks, cursor = logs.read(build, after=query.get("after", ""), phase=phase, limit=_limit(query))
        except ValueError as fault:
            raise ValidationError({"after": [ErrorDetail(str(fault), code="invalid_cursor")]}) from fault
        return {
            "projectId": build.project_id,
            "jobId": build.pk,
            "entries": [serializers.log_entry(chunk) for chunk in chunks],
            "nextCursor": cursor,
            # The build was read first: had it ended then, no line can have come since.
            "complete": build.is_terminal and len(chunks) < _limit(query),
            "truncated": build.log_truncated,
        }

    def artifacts(self, request: Request, pk: str) -> Response:
        build = self._build(pk)
        rows = list(_artifacts(build))
        return Response(
            {
                "projectId": build.project_id,
                "jobId": build.pk,
                "artifacts": [serializers.artifact_document(request, row, build) for row in rows],
                "totalSize": sum(row.size for row in rows),
            }
        )

    def artifact(self, request: Request, pk: str, name: str) -> HttpResponseBase:
        artifact = _artifacts(self._build(pk)).filter(name=name).first()
        if artifact is None:
            raise Http404
        return attachment(request, artifact)

    def _build(self, project: str) -> Build:
        """The build that a path means. Someone else's is not there at all."""
        builds = Build.objects.filter(project=_uuid(project), owner=self.request.user.pk).select_related("revision")
        if job := self.request.query_params.get("jobId"):
            builds = builds.filter(pk=_uuid(job))
        build = builds.order_by("-number").first()
        if build is None:
            raise Http404
        return build


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Http404 from None


def _limit(query: Any) -> int:
    text = query.get("limit", "500")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1000:
        raise ValidationError({"limit": [ErrorDetail("A number from 1 to 1000.", code="invalid")]})
    return int(text)


def _artifacts(build: Build) -> Any:
    """Those of the winning attempt, once there is one."""
    rows = Artifact.objects.filter(build=build, attempt=build.fence)
    return rows if build.status == Status.COMPLETED else rows.none()


def attachment(request: Request, artifact: Artifact) -> HttpResponseBase:
    """The file, never shown by a browser on our own origin."""
    etag = f'"{artifact.sha256}"'
    if etag in request.headers.get("If-None-Match", ""):
        return HttpResponse(status=304, headers={"ETag": etag})
    response = StreamingHttpResponse(_pieces(artifact.storage_key), content_type=artifact.content_type)
    response["Content-Length"] = str(artifact.size)
    response["Content-Disposition"] = content_disposition_header(True, artifact.name.rpartition("/")[2])
    response["ETag"] = etag
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "sandbox; default-src 'none'"
    return response


async def _pieces(key: str) -> AsyncIterator[bytes]:
    # An asynchronous iterator: Django would read a synchronous one into memory as a whole.
    file = await asyncio.to_thread(default_storage.open, key)
    try:
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield piece
    finally:
        await asyncio.to_thread(file.close)


class LiveView(APIView):
    """Answers as long as the process runs, whatever else does not."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get(self, request: Request) -> Response:
        return Response({"status": "ok"})


class HealthView(APIView):
    """Open to all: it tells nothing that a stranger could use."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get(self, request: Request) -> Response:
        status, checks = health.report()
        return Response({"status": status, "checks": checks}, status=200 if status == "ok" else 503)
