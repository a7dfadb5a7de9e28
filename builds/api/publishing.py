"""API: releases of a project."""

from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from builds.api.builds import builds_of
from builds.api.documents.releases import PublishedDocument, ReleaseDocument
from builds.api.requests import NewRelease, Nothing, Page
from builds.models import Build, Release, Site
from builds.sites import publishing
from chef.web.pagination import HighestNumberFirst
from projects.api.views import ApiViewSet, projects_of
from projects.models import ApiToken, Project


class ReleaseViewSet(ApiViewSet):
    """Releases of a project: create, list, activate, take down."""

    lookup_value_converter = "uuid"
    needed_scopes: ClassVar = dict.fromkeys(("publish", "unpublish", "activate"), ApiToken.Scope.PUBLISH)

    @extend_schema(
        operation_id="publishProject",
        request=NewRelease,
        responses={201: PublishedDocument},
        examples=[OpenApiExample("The last build, with a chosen name", value={"slug": "todo"}, request_only=True)],
    )
    @action(detail=True, methods=["post"])
    def publish(self, request: Request, pk: Any) -> Response:
        """Publish a completed build, by default the last one, as a new live release."""
        project = self._project(pk)
        body = NewRelease(data=request.data)
        body.is_valid(raise_exception=True)
        data = body.validated_data
        build = self._build_to_publish(project, data.get("job_id"))
        release, warnings = publishing.publish_build(
            build, by=self.user, slug=data.get("slug", ""), single_page=data.get("single_page")
        )
        context = {"request": request, "site": _site_of(project), "warnings": warnings}
        document = PublishedDocument(release, context=context).data
        return Response(document, status=201, headers={"Location": document["links"]["self"]})

    @extend_schema(operation_id="unpublishProject", responses={204: None})
    @publish.mapping.delete
    def unpublish(self, request: Request, pk: Any) -> Response:
        """Take the site down. Its releases stay at their permanent URLs."""
        publishing.take_down(self._project(pk))
        return Response(status=204)

    @extend_schema(operation_id="listReleases", parameters=[Page], responses=ReleaseDocument(many=True))
    @action(detail=True, url_name="release-list", pagination_class=HighestNumberFirst)
    def releases(self, request: Request, pk: Any) -> Response:
        """The project's releases, newest first."""
        Page.of(request)
        project = self._project(pk)
        return self.page(project.releases.all(), ReleaseDocument, site=_site_of(project))

    @extend_schema(operation_id="getRelease", responses=ReleaseDocument)
    @action(detail=True, url_path="releases/<int:number>", url_name="release")
    def release(self, request: Request, pk: Any, number: int) -> Response:
        """One release."""
        return self._answer(self._release(pk, number))

    @extend_schema(operation_id="activateRelease", request=Nothing, responses={200: ReleaseDocument})
    @action(detail=True, methods=["post"], url_path="releases/<int:number>/activate", url_name="release-activate")
    def activate(self, request: Request, pk: Any, number: int) -> Response:
        """Make a release live: roll back or forward."""
        release = self._release(pk, number)
        publishing.activate_release(release)
        return self._answer(release)

    def _project(self, pk: Any) -> Project:
        project: Project = self.get_or_404(projects_of(self.request), pk=pk)
        return project

    def _release(self, pk: Any, number: int) -> Release:
        release: Release = self.get_or_404(self._project(pk).releases.all(), number=min(number, 2**31 - 1))
        return release

    def _answer(self, release: Release) -> Response:
        context = {"request": self.request, "site": _site_of(release.project)}
        return Response(ReleaseDocument(release, context=context).data)

    def _build_to_publish(self, project: Project, job_id: Any) -> Build:
        if job_id:
            named: Build = self.get_or_404(builds_of(self.request).filter(project=project), pk=job_id)
            return named
        return publishing.build_to_publish(project)


def _site_of(project: Project) -> Site | None:
    return Site.objects.filter(project=project).first()
