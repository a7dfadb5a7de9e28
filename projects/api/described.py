"""Fields that say themselves what they take, in the words of JSON Schema, so that the API's schema cannot say else."""

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerFieldExtension


class Described:
    """For a serializer field, left of it."""

    def schema(self) -> dict[str, Any]:
        """What the field takes, as JSON Schema."""
        raise NotImplementedError


class _Extension(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    target_class = Described
    match_subclasses = True

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = self.target.schema()
        return schema
