"""The API for external builders: claim a build, renew its lease, fetch its files, report its result.

Each message is signed and processed once, however often it arrives: the answer is stored under its webhook-id.
"""

from datetime import timedelta
from typing import Any, cast

from django.db import transaction
from django.http import HttpResponse, HttpResponseBase
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from builds import external
from builds.api.documents.external import KeptDocument, ReportedDocument, TakenDocument
from builds.api.external_requests import WorkerClaim, WorkerHeartbeat, WorkerResult
from builds.api.schema.openapi import Error
from builds.api.signatures import LINK_SECONDS, Link, LinkAuthentication, SignatureAuthentication, invalid_link
from chef.refusals import RefusalError
from chef.web.idempotency import Claim, claim_or_wait
from chef.web.rate_limits import RateLimitedMixin
from chef.web.signed_messages import SignedMessage
from projects.api.documents import address
from projects.api.serializers import CamelSerializer
from projects.api.views import AnyAccept, send_archive

# How long a concurrent duplicate of a message waits for the answer to the first.
WAIT_SECONDS = 20

_REFUSALS = {
    401: OpenApiResponse(Error, description="The message is not signed, or not with a known secret."),
    403: OpenApiResponse(Error, description="This installation has no external builders."),
    409: OpenApiResponse(Error, description="The same message is still being processed."),
    422: OpenApiResponse(Error, description="This `webhook-id` was used for another message."),
}
_OF_BUILD = {
    **_REFUSALS,
    404: OpenApiResponse(Error, description="There is no such build."),
    409: OpenApiResponse(Error, description="The build does not (or no longer) belong to the sender."),
}


class SignedView(RateLimitedMixin, APIView):
    """Authorised by the signature of each message. The rate is limited only for missing or bad signatures."""

    authentication_classes = (SignatureAuthentication,)
    permission_classes = ()
    content_negotiation_class = AnyAccept
    body: type[CamelSerializer]

    def check_throttles(self, request: Request) -> None:
        """Signed messages are not rate-limited."""

    def process_once(self, request: Request) -> HttpResponseBase:
        """The stored answer to the message, or else the one of `work`, which stores it."""
        body = self.body(data=request.data)
        body.is_valid(raise_exception=True)
        message = cast(SignedMessage, request.auth)
        claimed = claim_or_wait(None, message.id, message.fingerprint(request.path), seconds=WAIT_SECONDS)
        if isinstance(claimed, HttpResponse):
            return claimed
        try:
            return self.work(claimed, dict(body.validated_data))
        except BaseException:
            claimed.release()
            raise

    def work(self, claimed: Claim, data: dict[str, Any]) -> HttpResponse:
        """Process the message and store the answer in the same transaction."""
        raise NotImplementedError

    def store_answer(self, claimed: Claim, document: dict[str, Any] | None) -> HttpResponse:
        content = JSONRenderer().render(document) if document else b""
        response = HttpResponse(content, status=200 if document else 204, content_type="application/json")
        claimed.keep(response)
        return response


class ClaimView(SignedView):
    body = WorkerClaim

    @extend_schema(
        operation_id="claimBuild",
        request=WorkerClaim,
        responses={
            200: OpenApiResponse(TakenDocument, description="The build is yours until its lease expires."),
            204: OpenApiResponse(description="No build is waiting for an external builder."),
            **_REFUSALS,
        },
    )
    def post(self, request: Request) -> HttpResponseBase:
        """Claim the next build of the external queue."""
        return self.process_once(request)

    @transaction.atomic
    def work(self, claimed: Claim, data: dict[str, Any]) -> HttpResponse:
        claimed_build = external.claim_build(data["worker"])
        return self.store_answer(claimed, self._document(claimed_build) if claimed_build else None)

    def _document(self, claimed_build: external.ClaimedBuild) -> dict[str, Any]:
        archive = {
            "url": address(self.request, "worker-archive", Link.of(claimed_build.build).token),
            "expires_at": timezone.now() + timedelta(seconds=LINK_SECONDS),
        }
        context = {"request": self.request, "environment": claimed_build.environment, "archive": archive}
        return dict(TakenDocument(claimed_build.build, context=context).data)


class HeartbeatView(SignedView):
    body = WorkerHeartbeat

    @extend_schema(operation_id="keepBuild", request=WorkerHeartbeat, responses={200: KeptDocument, **_OF_BUILD})
    def post(self, request: Request) -> HttpResponseBase:
        """Renew the lease of a claimed build. If refused, stop: it was cancelled, or claimed by another builder."""
        return self.process_once(request)

    @transaction.atomic
    def work(self, claimed: Claim, data: dict[str, Any]) -> HttpResponse:
        expiry = external.renew(data["job_id"], data["fence"])
        return self.store_answer(claimed, dict(KeptDocument({**data, "lease_expires_at": expiry}).data))


class ResultView(SignedView):
    body = WorkerResult

    @extend_schema(operation_id="reportResult", request=WorkerResult, responses={200: ReportedDocument, **_OF_BUILD})
    def post(self, request: Request) -> HttpResponseBase:
        """Report the result of a claimed build, with its log and artifacts. A refused report leaves nothing behind."""
        return self.process_once(request)

    def work(self, claimed: Claim, data: dict[str, Any]) -> HttpResponse:
        result = external.Result(
            job_id=data["job_id"],
            fence=data["fence"],
            is_completed=data["status"] == "completed",
            verdict=data.get("verdict", {}),
            logs=data.get("logs", ()),
            files=data.get("artifacts", ()),
        )
        # The store is not part of the transaction: files are stored before it, and removed if it fails.
        with external.reported(result) as report, transaction.atomic():
            return self.store_answer(claimed, dict(ReportedDocument(report.record()).data))


class ArchiveView(RateLimitedMixin, APIView):
    """Authorised by the URL alone; the rate of guesses is limited."""

    authentication_classes = (LinkAuthentication,)
    permission_classes = ()
    content_negotiation_class = AnyAccept

    def check_throttles(self, request: Request) -> None:
        """Requests with a valid URL are not rate-limited."""

    @extend_schema(
        operation_id="getClaimedArchive",
        auth=[],
        responses={
            (200, "application/gzip"): OpenApiTypes.BINARY,
            403: OpenApiResponse(Error, description="The URL is not valid, or has expired."),
        },
    )
    def get(self, request: Request, token: str) -> HttpResponseBase:
        """The source files of a claimed build as a tar.gz, at the URL from the answer to its claim."""
        link = cast(Link, request.auth)
        try:
            build = external.held(link.job_id, link.fence)
        except RefusalError as refusal:
            raise invalid_link() from refusal
        return send_archive(request, build.revision)
