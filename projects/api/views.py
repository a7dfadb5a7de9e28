"""The base of the API's view sets, and the revisions of projects. Knows nothing of builds."""

from collections.abc import AsyncIterator
from typing import Any, cast

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase
from django.utils.text import slugify
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from chef.web.downloads import Content, send, send_stream
from chef.web.idempotency import IdempotentMixin
from chef.web.pagination import HighestNumberFirst, NewestFirst
from chef.web.rate_limits import RateLimitedMixin
from projects.api.documents import RevisionDetail, RevisionDocument
from projects.files.archives import pack
from projects.models import Project, Revision


class AnyAccept(DefaultContentNegotiation):
    """The requested media type if available, else the first: a browser or a plain `curl` gets JSON."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        for wanted in request.headers.get("Accept", "").split(","):
            for renderer in renderers:
                if wanted.partition(";")[0].strip().lower() == renderer.media_type:
                    return renderer, renderer.media_type
        return renderers[0], renderers[0].media_type


class ApiViewSet(IdempotentMixin, RateLimitedMixin, GenericViewSet[Any]):
    """The base of all view sets: the user, rate limits, idempotent POSTs, cursor pagination.

    Errors are always JSON, whatever `Accept` says.
    """

    content_negotiation_class = AnyAccept
    pagination_class: type[NewestFirst] | None = NewestFirst

    @property
    def user(self) -> User:
        return cast(User, self.request.user)  # HasScope requires authentication

    def handle_exception(self, exc: Exception) -> Response:
        response = super().handle_exception(exc)
        self.request.accepted_renderer, self.request.accepted_media_type = JSONRenderer(), JSONRenderer.media_type
        return response

    def page(self, rows: QuerySet[Any], document: type[Any], **context: Any) -> Response:
        """One page of rows as documents."""
        shown = self.paginate_queryset(rows)
        return self.get_paginated_response(
            document(shown, many=True, context={"request": self.request, **context}).data
        )

    def get_or_404(self, rows: QuerySet[Any], **where: Any) -> Any:
        """The row. Raises Http404 if it is missing or belongs to another user."""
        row = rows.filter(**where).first()
        if row is None:
            raise Http404
        return row


def projects_of(request: Request) -> QuerySet[Project]:
    """All projects of the user."""
    return Project.objects.filter(owner=request.user.pk)


class RevisionViewSet(ApiViewSet):
    """Immutable snapshots of a project's source files."""

    lookup_value_converter = "uuid"

    @extend_schema(operation_id="listRevisions", responses=RevisionDocument(many=True))
    @action(detail=True, url_name="revisions", pagination_class=HighestNumberFirst)
    def revisions(self, request: Request, pk: Any) -> Response:
        """The project's revisions, newest first."""
        project = self.get_or_404(projects_of(request), pk=pk)
        return self.page(Revision.objects.filter(project=project), RevisionDocument)

    @extend_schema(operation_id="getRevision", responses=RevisionDetail)
    @action(detail=True, url_path="revisions/<int:number>", url_name="revision")
    def revision(self, request: Request, pk: Any, number: int) -> Response:
        """One revision: its strategy request and its files."""
        return Response(RevisionDetail(self._revision(pk, number), context={"request": request}).data)

    @extend_schema(operation_id="getSourceFile", responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    @action(detail=True, url_path="revisions/<int:number>/files/<path:path>", url_name="file")
    def file(self, request: Request, pk: Any, number: int, path: str) -> HttpResponseBase:
        """One source file, as an attachment, with ETag and ranges."""
        if "\0" in path:
            raise Http404
        file = self.get_or_404(self._revision(pk, number).files.all(), path=path)
        etag = f"{file.revision_id}-{file.pk}"
        content = Content(file.size, "application/octet-stream", etag, _reader(bytes(file.content)))
        return send(request, content, file_name=path.rpartition("/")[2])

    @extend_schema(operation_id="getRevisionArchive", responses={(200, "application/gzip"): OpenApiTypes.BINARY})
    @action(detail=True, url_path="revisions/<int:number>/archive", url_name="archive")
    def archive(self, request: Request, pk: Any, number: int) -> HttpResponseBase:
        """All of a revision's files as a tar.gz."""
        return send_archive(request, self._revision(pk, number))

    def _revision(self, pk: Any, number: int) -> Revision:
        if number > 2**31 - 1:  # too large for the column
            raise Http404
        return cast(
            Revision,
            self.get_or_404(Revision.objects.filter(project__in=projects_of(self.request), project=pk), number=number),
        )


def send_archive(request: HttpRequest, revision: Revision) -> HttpResponseBase:
    """All of a revision's files as a tar.gz, packed as it is sent."""
    files = revision.files.order_by("path").iterator(chunk_size=50)
    name = f"{slugify(revision.project.name) or 'project'}-{revision.number}.tar.gz"
    return send_stream(request, pack(files), media_type="application/gzip", file_name=name)


def _reader(data: bytes) -> Any:
    async def read(start: int, length: int) -> AsyncIterator[bytes]:
        yield data[start : start + length]

    return read
