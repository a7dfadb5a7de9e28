"""How the API is described: DRF's views and serializers → OpenAPI 3.1, with the one shape of every error."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiResponse
from rest_framework import serializers


class ErrorItem(serializers.Serializer[Any]):
    code = serializers.CharField(help_text="Stable: programs may go by it.")
    detail = serializers.CharField(help_text="What is wrong, and what to do.")
    attr = serializers.CharField(allow_null=True, help_text="The field, path or parameter that is at fault.")


class Error(serializers.Serializer[Any]):
    """All that is wrong with a request, at once."""

    type = serializers.ChoiceField(choices=["validation_error", "client_error", "server_error"])
    errors = ErrorItem(many=True)  # type: ignore[assignment]


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "projects.authentication.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}


class ApiSchema(AutoSchema):
    """Adds to every operation the errors that it may answer with."""

    def _get_response_bodies(self, direction: str = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction=direction)  # type: ignore[arg-type]
        for code, meaning in self._errors().items():
            if code not in bodies:
                error = OpenApiResponse(Error, description=meaning)
                bodies[code] = self._get_response_for_code(error, code, ["application/json"])  # type: ignore[no-untyped-call]
        return bodies

    def _errors(self) -> dict[str, str]:
        if not self.view.get_authenticators():
            return {}
        errors = {
            "400": "The request is not right: each error says what to do.",
            "401": "No token, or none that is usable.",
            "403": "The token's scope does not reach this far.",
            "429": "Too many requests, or builds: come back after `Retry-After`.",
        }
        if "{" in self.path:
            errors["404"] = "There is no such thing, or it is someone else's."
        if self.method == "POST":
            errors["409"] = "Not in this state; or a request with this `Idempotency-Key` is still under way."
            errors["413"] = "The body is larger than any request may be."
            errors["415"] = "The body is of a kind that is not read here."
            errors["422"] = "This `Idempotency-Key` came with another body before."
            errors["503"] = "The queue is full: come back after `Retry-After`."
        return errors
