"""API: projects and their builds; one build is the latest, or the one given by `?jobId=`."""

from typing import Any

from django.http import Http404, HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from builds import actions
from builds.api.artifacts import content_of, zip_of
from builds.api.builds import answer_build, builds_of
from builds.api.documents.builds import (
    Accepted,
    ArtifactList,
    BuildDocument,
    ProjectDetail,
    ProjectDocument,
    build_document,
)
from builds.api.generations import ANSWERS, PREFER, answer_generation, options_of, validated_request
from builds.api.requests import (
    PROJECT_EXAMPLES,
    SOURCES_EXAMPLE,
    JobIdQuery,
    NewBuild,
    NewProject,
    NewRevision,
    Page,
    ProjectChanges,
    ProjectLogQuery,
    Prompt,
    upload_schemas,
)
from builds.api.streams import LOG_RENDERERS, LOG_RESPONSES, answer_logs
from builds.api.webhook_fields import UrlViewSet
from builds.api.webhooks import forbid_caching_secret
from builds.artifacts import artifacts_of
from builds.models import Build, Priority
from chef.web.downloads import send, send_made
from projects.api.parsers import ArchiveParser, JSONParser
from projects.api.serializers import wire_names
from projects.api.views import ApiViewSet, RevisionViewSet, projects_of
from projects.environment import environment_document
from projects.generations import actions as generations
from projects.models import Project


class ProjectViewSet(UrlViewSet):
    """One's projects."""

    lookup_value_converter = "uuid"
    url_name = "webhookUrl"
    url_actions = frozenset({"create", "partial_update"})

    def get_parsers(self) -> list[BaseParser]:
        return parsers_for(self, takes_archive="create")

    # --- Projects ------------------------------------------------------------------------------------------------

    @extend_schema(operation_id="listProjects", parameters=[Page], responses=ProjectDocument(many=True))
    def list(self, request: Request) -> Response:
        """Projects, newest first, each with its latest build."""
        Page.of(request)
        shown = self.paginate_queryset(projects_of(request)) or []
        context = {"request": request, "latest": Build.objects.latest_of(shown)}
        return self.get_paginated_response(ProjectDocument(shown, many=True, context=context).data)

    @extend_schema(
        operation_id="createProject",
        request=upload_schemas(NewProject),
        responses={201: Accepted},
        examples=PROJECT_EXAMPLES,
    )
    def create(self, request: Request) -> Response:
        """Create a project from files or an archive, and build it."""
        data = _validated(NewProject, request, refusal=self.refusal)
        build, secret = actions.submit_project_with_webhook(
            by=self.user,
            name=data["name"],
            env=data.get("env"),
            secrets=data.get("secrets"),
            webhook_url=data.get("webhook_url"),
            **_build_options(data),
        )
        return _accepted(request, build, webhook_secret=secret)

    @extend_schema(operation_id="getProject", responses=ProjectDetail)
    def retrieve(self, request: Request, pk: Any) -> Response:
        """One project with its environment; for secrets, only the names."""
        return Response(self._detail(self.get_or_404(projects_of(request), pk=pk)))

    @extend_schema(operation_id="changeProject", request=ProjectChanges, responses=ProjectDetail)
    def partial_update(self, request: Request, pk: Any) -> Response:
        """Change a project's name, webhook URL, or environment (from the next build on)."""
        project = self.get_or_404(projects_of(request), pk=pk)
        secret = actions.change_project(project, **_validated(ProjectChanges, request, refusal=self.refusal))
        return forbid_caching_secret(Response(self._detail(project, webhook_secret=secret)), secret)

    @extend_schema(operation_id="deleteProject", responses={204: None})
    def destroy(self, request: Request, pk: Any) -> Response:
        """Delete a project with its builds, logs and artifacts. Running builds are cancelled."""
        actions.delete_project(self.get_or_404(projects_of(request), pk=pk), by=self.user)
        return Response(status=204)

    # --- Their builds --------------------------------------------------------------------------------------------

    @extend_schema(operation_id="rebuildProject", request=NewBuild, responses={201: BuildDocument})
    @action(detail=True, methods=["post"], url_path="builds", url_name="rebuild")
    def rebuild(self, request: Request, pk: Any) -> Response:
        """Build an existing revision, by default the latest."""
        project = self.get_or_404(projects_of(request), pk=pk)
        data = _validated(NewBuild, request)
        rows = project.revisions.order_by("-number")
        revision = self.get_or_404(rows, number=data["revision"]) if "revision" in data else self.get_or_404(rows)
        build = actions.queue_build(revision, by=self.user, **_queue_options(data))
        return answer_build(request, build, status=201)

    @extend_schema(operation_id="editProject", request=Prompt, responses=ANSWERS, parameters=[PREFER])
    @action(detail=True, methods=["post"])
    def generate(self, request: Request, pk: Any) -> Response:
        """Change a project by a prompt: a new revision on top of the last, and its build."""
        project = self.get_or_404(projects_of(request), pk=pk)
        data = validated_request(Prompt, request)
        generation = generations.request_edit(
            project, by=self.user, prompt=data["prompt"], options=options_of(data["config"])
        )
        return answer_generation(request, generation)

    @extend_schema(operation_id="getProjectStatus", parameters=[JobIdQuery], responses=BuildDocument)
    @action(detail=True)
    def status(self, request: Request, pk: Any) -> Response:
        """The project's latest build, or the one that `jobId` names."""
        return Response(build_document(request, self._build(pk, JobIdQuery.of(request))))

    @extend_schema(operation_id="getProjectLogs", parameters=[ProjectLogQuery], responses=LOG_RESPONSES)
    @action(detail=True, renderer_classes=LOG_RENDERERS)
    def logs(self, request: Request, pk: Any) -> HttpResponseBase:
        """The log in the form that `Accept` asks for: JSON entries, plain text, or live events."""
        query = ProjectLogQuery.of(request)
        return answer_logs(request, self._build(pk, query), query)

    @extend_schema(operation_id="listArtifacts", parameters=[JobIdQuery], responses=ArtifactList)
    @action(detail=True)
    def artifacts(self, request: Request, pk: Any) -> Response:
        """The output files of a completed build."""
        build = self._build(pk, JobIdQuery.of(request))
        rows = list(artifacts_of(build))
        document = {
            "project_id": build.project_id,
            "job_id": build.pk,
            "artifacts": rows,
            "total_size": sum(row.size for row in rows),
        }
        return Response(ArtifactList(document, context={"request": request, "build": build}).data)

    @extend_schema(operation_id="getArtifact", parameters=[JobIdQuery], responses={(200, "*/*"): OpenApiTypes.BINARY})
    @action(detail=True, url_path="artifacts/<path:name>", url_name="artifact")
    def artifact(self, request: Request, pk: Any, name: str) -> HttpResponseBase:
        """One output file, as an attachment, with ETag and ranges."""
        if "\0" in name:
            raise Http404
        artifact = self.get_or_404(artifacts_of(self._build(pk, JobIdQuery.of(request))), name=name)
        return send(request, content_of(artifact), file_name=name.rpartition("/")[2])

    @extend_schema(
        operation_id="getArtifactsZip",
        parameters=[JobIdQuery],
        responses={(200, "application/zip"): OpenApiTypes.BINARY},
    )
    @action(detail=True, url_path="artifacts.zip", url_name="artifacts-zip")
    def artifacts_zip(self, request: Request, pk: Any) -> HttpResponseBase:
        """All output files as one zip, streamed."""
        build = self._build(pk, JobIdQuery.of(request))
        if not artifacts_of(build).exists():
            raise Http404
        name, size, pieces = zip_of(build)
        return send_made(request, pieces, media_type="application/zip", file_name=name, size=size)

    # --- Helpers ---------------------------------------------------------------------------------------

    def _build(self, pk: Any, query: dict[str, Any]) -> Build:
        builds = builds_of(self.request).filter(project=pk).order_by("-number")
        found: Build = self.get_or_404(builds, pk=query["job_id"]) if "job_id" in query else self.get_or_404(builds)
        return found

    def _detail(self, project: Project, *, webhook_secret: str | None = None) -> dict[str, Any]:
        context = {
            "request": self.request,
            "webhook_secret": webhook_secret,
            "latest": Build.objects.latest_of([project]),
            "environment": environment_document(project),
        }
        return dict(ProjectDetail(project, context=context).data)


class ProjectRevisionViewSet(RevisionViewSet):
    """Revisions of a project; new ones are built."""

    def get_parsers(self) -> list[BaseParser]:
        return parsers_for(self, takes_archive="add_revision")

    @extend_schema(
        operation_id="addRevision",
        request=upload_schemas(NewRevision),
        responses={201: Accepted},
        examples=[SOURCES_EXAMPLE],
    )
    @RevisionViewSet.revisions.mapping.post
    def add_revision(self, request: Request, pk: Any) -> Response:
        """Upload a new snapshot of a project's files, and build it."""
        project = self.get_or_404(projects_of(request), pk=pk)
        build = actions.submit_revision(project, by=self.user, **_build_options(_validated(NewRevision, request)))
        return _accepted(request, build)


def parsers_for(view: ApiViewSet, *, takes_archive: str) -> list[BaseParser]:
    """JSON, and for one action archives too."""
    # DRF calls this before it has set the action.
    action = view.action_map.get((view.request.method or "").lower()) if view.request else view.action
    return [JSONParser(), ArchiveParser()] if action == takes_archive else [JSONParser()]


def _accepted(request: Request, build: Build, *, webhook_secret: str | None = None) -> Response:
    document = Accepted(build, context={"request": request, "webhook_secret": webhook_secret}).data
    response = Response(document, status=201, headers={"Location": document["links"]["self"]})
    return forbid_caching_secret(response, webhook_secret)


def _validated(serializer: type[Any], request: Request, **context: Any) -> dict[str, Any]:
    body = serializer(data=request.data, context=context)
    body.is_valid(raise_exception=True)
    return dict(body.validated_data)


def _build_options(data: dict[str, Any]) -> dict[str, Any]:
    """The upload and its build, as keyword arguments of `builds.actions`."""
    return {
        **_queue_options(data),
        "files": data["files"],
        "dependencies": data["dependencies"],
        "strategy": wire_names(data["strategy"]),
    }


def _queue_options(data: dict[str, Any]) -> dict[str, Any]:
    """A build's queue and priority, as keyword arguments of `builds.actions`."""
    queue = data.get("queue")
    is_external = None if queue is None else queue == "external"
    return {"priority": Priority[data["priority"].upper()], "is_external": is_external}
