"""How the API is described: DRF's views and serializers → OpenAPI 3.1, with the one shape of every error."""

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
Prompts or projects in; builds, logs and artifacts out. Send `Authorization: Bearer <token>`; `manage.py create_token`
makes one.
Names are camelCase, times are RFC 3339 in UTC, ids are UUIDs. Lists come in pages: follow `next` and `previous`.

**Sending twice.** A POST with an `Idempotency-Key` is done once: the same request with the same key gets the first
answer again, for a day.

**Sending much.** `RateLimit-Policy` and `RateLimit` tell how many requests are left. A refusal says in `Retry-After`
when to come back.

**Builders outside.** Who builds what the queue `external` holds has no token: each message to `/v1/hooks/` is signed,
as the Standard Webhooks specification says, and done once by its `webhook-id`.

**Being told.** `POST /v1/webhooks` has an address told of builds. Messages are signed as Standard Webhooks has it, and
come at least once: `webhook-id` says which is which. Anything but a 2xx is tried again for a day.

**Errors** have one shape, and tell all that is wrong at once. `detail` is for people; programs go by `code`, and codes
stay as they are.
"""


_SIGNED = {
    "webhook-id": "The message's own: the same message again has the same id, and gets the same answer.",
    "webhook-timestamp": "Seconds since 1970, within five minutes of the server's clock.",
    "webhook-signature": "`v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`, by the secret's bytes.",
}


class ErrorItem(serializers.Serializer[Any]):
    code = serializers.ChoiceField(choices=list(CODES), help_text="Stable: programs may go by it.")
    detail = serializers.CharField(help_text="What is wrong, and what to do.")
    attr = serializers.CharField(allow_null=True, help_text="The field, path or parameter that is at fault.")


class Error(serializers.Serializer[Any]):
    """All that is wrong with a request, at once."""

    type = serializers.ChoiceField(choices=["validation_error", "client_error", "server_error"])
    errors = ErrorItem(many=True)  # type: ignore[assignment]


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "projects.api.authentication.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}


class SignatureScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """All three headers together, as the Standard Webhooks specification has them."""

    target_class = "builds.api.signatures.SignatureAuthentication"
    name = ["webhookId", "webhookTimestamp", "webhookSignature"]

    def get_security_definition(self, auto_schema: AutoSchema) -> list[dict[str, str]]:
        return [{"type": "apiKey", "in": "header", "name": name, "description": _SIGNED[name]} for name in HEADERS]


class AnonymousScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Where anyone is let in, the schema still says what to send elsewhere."""

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
    description="The same request with the same key is done once, and answered the same for a day.",
)
_RESPONSE_HEADERS = [
    OpenApiParameter(
        "Retry-After",
        int,
        OpenApiParameter.HEADER,
        description="Seconds after which to come back.",
        response=[429, 503],
    ),
    *(
        OpenApiParameter(name, str, OpenApiParameter.HEADER, description=description, response=True)
        for name, description in (
            ("RateLimit-Policy", 'How many requests may be made in how many seconds, as `"write";q=600;w=60`.'),
            ("RateLimit", 'How many are left, and seconds until all are there again, as `"write";r=599;t=60`.'),
        )
    ),
]


class ApiSchema(AutoSchema):
    """Adds to every operation the headers that it takes, and the errors that it may answer with."""

    def get_summary(self) -> str:
        return self._parts()[0]

    def get_description(self) -> str:  # type: ignore[override]
        return self._parts()[1]

    def _parts(self) -> tuple[str, str]:
        """The docstring's first sentence, and all that follows."""
        text = " ".join(super().get_description().split())
        summary, dot, rest = text.partition(". ")
        return (f"{summary}.", rest) if dot else (text, "")

    def _map_basic_serializer(self, serializer: Any, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]
        if direction == "request" and isinstance(force_instance(serializer), CamelSerializer):  # type: ignore[no-untyped-call]
            schema["additionalProperties"] = False  # a field that nobody knows is refused
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
        errors = {"405": "This path does not know the method."}
        if not self.view.get_authenticators():
            return errors
        errors |= {
            "400": "The request is not right: each error says what to do.",
            "401": "No token, or none that is usable.",
            "403": "The token's scope does not reach this far.",
            "429": "Too many requests, or builds: come back after `Retry-After`.",
            "503": "The queue is full, too many streams are open, or the store is away: come back after `Retry-After`.",
        }
        if "{" in self.path:
            errors["404"] = "There is no such thing, or it is someone else's."
        if self.method in {"POST", "PATCH"}:
            errors["409"] = "Not in this state."
            errors["413"] = "The body is larger than any request may be."
            errors["415"] = "The body is of a kind that is not read here."
        if self.method == "POST":
            errors["409"] = "Not in this state; or a request with this `Idempotency-Key` is still under way."
            errors["422"] = "This `Idempotency-Key` came with another body before."
        return errors


def with_codes(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """A hook of drf-spectacular: lists every code of errors and verdicts on the docs page."""
    verdicts = {code: entry.message.replace("{", "<").replace("}", ">") for code, entry in CATALOGUE.items()}
    classes = {code: entry.cls.value for code, entry in CATALOGUE.items()}
    errors = "\n".join(f"| `{code}` | {meaning} |" for code, meaning in CODES.items())
    ends = "\n".join(f"| `{code}` | {classes[code]} | {meaning} |" for code, meaning in verdicts.items())
    result["info"]["description"] = (
        f"{INTRODUCTION}\n"
        f"<details><summary>Codes of errors</summary>\n\n| code | meaning |\n|---|---|\n{errors}\n\n</details>\n\n"
        f"<details><summary>Codes of verdicts</summary>\n\n"
        f"| code | class | meaning |\n|---|---|---|\n{ends}\n\n</details>\n"
    )
    return result
