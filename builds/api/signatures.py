"""Authentication without tokens: external builders by signed messages, and downloads by signed URLs."""

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

# Anyone may send a body, and verifying it takes several times its size in memory: verify large ones one at a time.
LARGE_BYTES = 1024**2
_large_body_lock = threading.Lock()
# Long enough to start downloading an archive; a started download continues.
LINK_SECONDS = 600
_SALT = "chef: a revision's archive for a builder outside"


class SignatureAuthentication(BaseAuthentication):
    """request.auth is the SignedMessage; there is no user."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, SignedMessage]:
        if not settings.WORKER_SECRETS:
            detail = "This installation has no external builders: the operator sets CHEF_WORKER_SECRET."
            raise PermissionDenied(detail, code="no_outside_builder")
        try:
            check_headers(request.headers)
            return AnonymousUser(), _verified(request)
        except NotSignedError as refusal:
            # DRF treats only its own exception as failed authentication, with WWW-Authenticate.
            raise AuthenticationFailed(str(refusal), code=refusal.code) from refusal

    def authenticate_header(self, request: Request) -> str:
        return 'StandardWebhooks realm="chef"'


def _verified(request: Request) -> SignedMessage:
    http = request._request
    is_large = int(http.META.get("CONTENT_LENGTH") or 0) > LARGE_BYTES
    with _large_body_lock if is_large else nullcontext():
        try:
            # The exact bytes received: the signature does not cover a parsed form.
            return verified(request.headers, http.body, settings.WORKER_SECRETS)
        except NotSignedError:
            http._body = b""  # otherwise it stays in memory until the answer is sent
            raise


@dataclass(frozen=True)
class Link:
    """What a signed URL gives access to: the files of a build, while it runs under this fence."""

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
    """request.auth is the Link in the URL's `token`; there is no user."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, Link]:
        kwargs: dict[str, Any] = request.parser_context["kwargs"]
        try:
            return AnonymousUser(), Link.read(kwargs["token"])
        except signing.BadSignature as bad:
            raise invalid_link() from bad


def invalid_link() -> PermissionDenied:
    detail = "This URL is invalid or has expired: it is valid for a few minutes while you hold the build."
    return PermissionDenied(detail, code="invalid_link")
