"""Who may, without a token: builders outside, by the signature of each message; and who was given a signed address."""

import threading
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.core import signing
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.request import Request

from builds.models import Build
from chef.web.signed_messages import NotSignedError, SignedMessage, check_headers, verified

# Anyone may send a body, and verifying it takes several times its size in memory: large ones go one after the other.
LARGE_BYTES = 1024**2
_one_large = threading.Lock()
# Long enough to begin to fetch an archive; what has begun goes on.
LINK_SECONDS = 600
_SALT = "chef: a revision's archive for a builder outside"


class SignatureAuthentication(BaseAuthentication):
    """request.auth is the SignedMessage; there is no user."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, SignedMessage]:
        if not settings.WORKER_SECRETS:
            detail = "This installation has no builders outside of it: the operator sets CHEF_WORKER_SECRET."
            raise PermissionDenied(detail, code="no_outside_builder")
        try:
            check_headers(request.headers)
            return AnonymousUser(), _verified(request)
        except NotSignedError as refusal:
            # DRF counts and answers its own exception as a failed authentication, with WWW-Authenticate.
            raise AuthenticationFailed(str(refusal), code=refusal.code) from refusal

    def authenticate_header(self, request: Request) -> str:
        return 'StandardWebhooks realm="chef"'


def _verified(request: Request) -> SignedMessage:
    http = request._request
    is_large = int(http.META.get("CONTENT_LENGTH") or 0) > LARGE_BYTES
    with _one_large if is_large else nullcontext():
        try:
            # The bytes as they came: what a parser makes of them is another text.
            return verified(request.headers, http.body, settings.WORKER_SECRETS)
        except NotSignedError:
            http._body = b""  # else it stays in memory until the answer has been sent
            raise


@dataclass(frozen=True)
class Link:
    """What a signed address lets its holder fetch: the files of a build, as long as it runs under this fence."""

    job_id: UUID
    fence: int

    @classmethod
    def of(cls, build: Build) -> "Link":
        return cls(build.pk, build.fence)

    @property
    def token(self) -> str:
        return signing.dumps([self.job_id.hex, self.fence], salt=_SALT)

    @classmethod
    def read(cls, token: str) -> "Link":
        """Raises signing.BadSignature."""
        job_id, fence = signing.loads(token, salt=_SALT, max_age=LINK_SECONDS)
        return cls(UUID(hex=job_id), fence)


class LinkAuthentication(BaseAuthentication):
    """request.auth is the Link that the address's `token` is; there is no user."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, Link]:
        kwargs: dict[str, Any] = request.parser_context["kwargs"]
        try:
            return AnonymousUser(), Link.read(kwargs["token"])
        except signing.BadSignature as bad:
            raise invalid_link() from bad


def invalid_link() -> PermissionDenied:
    detail = "This address is not, or no longer, good: it serves for some minutes, while the build is yours."
    return PermissionDenied(detail, code="invalid_link")
