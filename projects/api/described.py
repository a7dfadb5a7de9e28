"""Fields that describe their own input as JSON Schema, so that the API's schema always matches them."""

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerFieldExtension


class Described:
    """A mixin for a serializer field; put it first."""

    def schema(self) -> dict[str, Any]:
        """The input of the field as JSON Schema."""
        raise NotImplementedError


class _Extension(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    target_class = Described
    match_subclasses = True

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = self.target.schema()
        return schema
