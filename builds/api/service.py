"""API: health, runtimes, and detection."""

from typing import Any

from django.conf import settings
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from builds.api.documents.builds import Detected
from builds.api.documents.service import HealthDocument, LiveDocument, RuntimeList
from builds.api.requests import SOURCES_EXAMPLE, Sources, upload_schemas
from builds.operations import health
from builds.runner import resolved_strategy, strategy_request
from builds.runtimes.catalogue import RUNTIMES
from builds.runtimes.detection import detect
from projects.api.parsers import ArchiveParser, JSONParser
from projects.api.serializers import wire_names
from projects.api.views import AnyAccept, ApiViewSet


class DetectViewSet(ApiViewSet):
    """Detect the strategy of a build without building."""

    parser_classes = (JSONParser, ArchiveParser)

    @extend_schema(
        operation_id="detect", request=upload_schemas(Sources), responses={200: Detected}, examples=[SOURCES_EXAMPLE]
    )
    def create(self, request: Request) -> Response:
        """The strategy that a build of these files would use, and why."""
        body = Sources(data=request.data)
        body.is_valid(raise_exception=True)
        data = body.validated_data
        strategy = wire_names(data["strategy"])
        files = {file.path: file.content for file in data["files"]}
        plan = detect(files, dependencies=data["dependencies"], strategy=strategy_request(strategy))
        return Response(Detected({"strategy": resolved_strategy(plan, strategy)}).data)


class RuntimesViewSet(ApiViewSet):
    """The available runtimes."""

    pagination_class = None

    @extend_schema(operation_id="listRuntimes", responses=RuntimeList)
    def retrieve(self, request: Request) -> Response:
        """The runtimes with their versions, and the limits of this installation."""
        return Response(RuntimeList({"runtimes": list(RUNTIMES.values()), "limits": limits()}).data)


def limits() -> dict[str, Any]:
    return {
        "files": settings.MAX_FILES,
        "fileBytes": settings.MAX_FILE_BYTES,
        "projectBytes": settings.MAX_PROJECT_BYTES,
        "pathBytes": settings.MAX_PATH_BYTES,
        "pathDepth": settings.MAX_PATH_DEPTH,
        "timeout": int(settings.WORKER_TIMEOUT * 1000),
        "memory": settings.DOCKER_MEMORY_LIMIT,
        "cpus": settings.DOCKER_CPU_LIMIT,
        "processes": settings.PIDS_LIMIT,
        "logBytes": settings.MAX_LOG_BYTES,
        "artifacts": settings.MAX_ARTIFACTS,
        "artifactBytes": settings.MAX_ARTIFACT_BYTES,
        "queuedPerOwner": settings.OWNER_MAX_QUEUED,
    }


class OpenView(APIView):
    """Public: it reveals nothing sensitive."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    throttle_classes = ()
    content_negotiation_class = AnyAccept


class LiveView(OpenView):
    @extend_schema(operation_id="getLiveness", auth=[], responses=LiveDocument)
    def get(self, request: Request) -> Response:
        """Answers as long as the process runs, whatever the state of its dependencies."""
        return Response({"status": "ok"})


class HealthView(OpenView):
    @extend_schema(
        operation_id="getHealth",
        auth=[],
        responses={200: HealthDocument, 503: OpenApiResponse(HealthDocument, description="Degraded or down.")},
    )
    def get(self, request: Request) -> Response:
        """Whether the installation can work. Answers in under a second even if a dependency hangs."""
        status, checks = health.report()
        return Response({"status": status, "checks": checks}, status=200 if status == "ok" else 503)
