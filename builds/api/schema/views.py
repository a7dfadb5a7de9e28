"""Serves the schema: OpenAPI for programs, and a self-contained page for people."""

from functools import cache
from typing import Any

from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularSwaggerSplitView
from rest_framework.request import Request
from rest_framework.response import Response


@cache
def document() -> dict[str, Any]:
    """The complete schema. Generating it takes about a second, and it is the same for everyone, so it is cached."""
    schema: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return schema


class SchemaView(SpectacularJSONAPIView):
    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return Response(document())


class DocsView(SpectacularSwaggerSplitView):
    """The library's page with our own template, because its template has an inline style."""

    template_name = "api-docs.html"
