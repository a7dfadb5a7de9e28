"""The OpenAPI 3.1 schema from DRF's views and serializers, with one format for every error."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import force_instance
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers

from builds.api.schema.error_codes import CODES
from builds.verdicts.catalogue import CATALOGUE
from chef.web.idempotency import KEY_PATTERN, IdempotentMixin
from chef.web.signed_messages import HEADERS
from projects.api.serializers import CamelSerializer

INTRODUCTION = """
Turns prompts and source files into built and published apps. Send `Authorization: Bearer <token>`; create a token with
`manage.py create_token` or on the tokens page.
Names are camelCase, times are RFC 3339 in UTC, ids are UUIDs. Lists are paginated: follow `next` and `previous`.

**Idempotency.** A POST with an `Idempotency-Key` is processed once: repeating the request with the same key returns the
first answer, for 24 hours.

**Rate limits.** `RateLimit-Policy` and `RateLimit` say how many requests are left. When a request is refused,
`Retry-After` says when to retry.

**External builders.** Builders of the queue `external` need no token: each message to `/v1/hooks/` is signed according
to the Standard Webhooks specification, and processed once per `webhook-id`.

**Webhooks.** `POST /v1/webhooks` registers a URL for events about builds. Messages are signed according to Standard
Webhooks and delivered at least once: use `webhook-id` to detect repeats. Answers other than 2xx are retried for a day.

**Errors** have one format and report everything that is wrong at once. `detail` is for people; programs can rely on
`code`, because codes never change.
"""


_SIGNED = {
    "webhook-id": "The id of the message: sending it again with the same id returns the same answer.",
    "webhook-timestamp": "Unix time in seconds, within five minutes of the server's clock.",
    "webhook-signature": "`v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`, keyed with the secret's bytes.",
}


class ErrorItem(serializers.Serializer[Any]):
    code = serializers.ChoiceField(choices=list(CODES), help_text="Stable, so that programs can rely on it.")
    detail = serializers.CharField(help_text="What is wrong, and what to do.")
    attr = serializers.CharField(allow_null=True, help_text="The field, path or parameter with the error.")


class Error(serializers.Serializer[Any]):
    """All errors of a request at once."""

    type = serializers.ChoiceField(choices=["validation_error", "client_error", "server_error"])
    errors = ErrorItem(many=True)  # type: ignore[assignment]


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "projects.api.authentication.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}


class SignatureScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The three headers of the Standard Webhooks specification together."""

    target_class = "builds.api.signatures.SignatureAuthentication"
    name = ["webhookId", "webhookTimestamp", "webhookSignature"]

    def get_security_definition(self, auto_schema: AutoSchema) -> list[dict[str, str]]:
        return [{"type": "apiKey", "in": "header", "name": name, "description": _SIGNED[name]} for name in HEADERS]


class AnonymousScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """With anonymous access, the schema still shows what other installations require."""

    target_class = "projects.api.authentication.LocalUserAuthentication"
    name = "local"

    def get_security_definition(self, auto_schema: AutoSchema) -> list[Any]:
        return []

    def get_security_requirement(self, auto_schema: AutoSchema) -> dict[str, list[Any]]:
        return {}


_IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "pattern": KEY_PATTERN},
    OpenApiParameter.HEADER,
    description="A request with the same key is processed once; its answer is repeated for 24 hours.",
)
_RESPONSE_HEADERS = [
    OpenApiParameter(
        "Retry-After",
        int,
        OpenApiParameter.HEADER,
        description="Seconds to wait before retrying.",
        response=[429, 503],
    ),
    *(
        OpenApiParameter(name, str, OpenApiParameter.HEADER, description=description, response=True)
        for name, description in (
            ("RateLimit-Policy", 'How many requests may be made in how many seconds, as `"write";q=600;w=60`.'),
            ("RateLimit", 'How many are left, and seconds until the limit resets, as `"write";r=599;t=60`.'),
        )
    ),
]


class ApiSchema(AutoSchema):
    """Adds the request headers and possible errors to every operation."""

    def get_summary(self) -> str:
        return self._parts()[0]

    def get_description(self) -> str:  # type: ignore[override]
        return self._parts()[1]

    def _parts(self) -> tuple[str, str]:
        """The docstring's first sentence, and the rest."""
        text = " ".join(super().get_description().split())
        summary, dot, rest = text.partition(". ")
        return (f"{summary}.", rest) if dot else (text, "")

    def _map_basic_serializer(self, serializer: Any, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]
        if direction == "request" and isinstance(force_instance(serializer), CamelSerializer):  # type: ignore[no-untyped-call]
            schema["additionalProperties"] = False  # unknown fields are refused
        return schema

    def get_override_parameters(self) -> list[Any]:
        if not self.view.get_authenticators():
            return []
        takes_key = self.method == "POST" and isinstance(self.view, IdempotentMixin)
        return [*_RESPONSE_HEADERS, *([_IDEMPOTENCY_KEY] if takes_key else [])]

    def _get_response_bodies(self, direction: str = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction=direction)  # type: ignore[arg-type]
        for code, meaning in self._errors().items():
            if code not in bodies:
                error = OpenApiResponse(Error, description=meaning)
                bodies[code] = self._get_response_for_code(error, code, ["application/json"])  # type: ignore[no-untyped-call]
        return bodies

    def _errors(self) -> dict[str, str]:
        errors = {"405": "The method is not allowed at this path."}
        if not self.view.get_authenticators():
            return errors
        errors |= {
            "400": "The request is invalid: each error says what to do.",
            "401": "The token is missing or invalid.",
            "403": "The token's scope does not allow this.",
            "429": "Too many requests or builds: retry after `Retry-After`.",
            "503": "The queue is full, too many streams are open, or the store is down: retry after `Retry-After`.",
        }
        if "{" in self.path:
            errors["404"] = "It does not exist, or belongs to someone else."
        if self.method in {"POST", "PATCH"}:
            errors["409"] = "The current state does not allow this."
            errors["413"] = "The body exceeds the size limit of requests."
            errors["415"] = "The content type of the body is not supported."
        if self.method == "POST":
            errors["409"] = "The current state does not allow this, or the request with this key is still running."
            errors["422"] = "This `Idempotency-Key` was used with another body."
        return errors


def with_codes(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """A drf-spectacular hook: lists every error and verdict code on the docs page."""
    verdicts = {code: entry.message.replace("{", "<").replace("}", ">") for code, entry in CATALOGUE.items()}
    classes = {code: entry.cls.value for code, entry in CATALOGUE.items()}
    errors = "\n".join(f"| `{code}` | {meaning} |" for code, meaning in CODES.items())
    ends = "\n".join(f"| `{code}` | {classes[code]} | {meaning} |" for code, meaning in verdicts.items())
    result["info"]["description"] = (
        f"{INTRODUCTION}\n"
        f"<details><summary>Error codes</summary>\n\n| code | meaning |\n|---|---|\n{errors}\n\n</details>\n\n"
        f"<details><summary>Codes of verdicts</summary>\n\n"
        f"| code | class | meaning |\n|---|---|---|\n{ends}\n\n</details>\n"
    )
    return result
