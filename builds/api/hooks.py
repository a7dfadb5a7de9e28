"""The API for external builders: take a build, keep it, fetch its files, report its result.

Each message is signed, and is done once however often it comes: the answer is kept under its webhook-id.
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
from builds.api.hook_requests import WorkerClaim, WorkerHeartbeat, WorkerResult
from builds.api.schema.openapi import Error
from builds.api.signatures import LINK_SECONDS, Link, LinkAuthentication, SignatureAuthentication, invalid_link
from chef.refusals import RefusalError
from chef.web.idempotency import Claim, claim_or_wait
from chef.web.rate_limits import RateLimitedMixin
from chef.web.signed_messages import SignedMessage
from projects.api.documents import address
from projects.api.serializers import CamelSerializer
from projects.api.views import AnyAccept, send_archive

# How long the same message that comes at the same moment waits for the answer of the first.
WAIT_SECONDS = 20

_REFUSALS = {
    401: OpenApiResponse(Error, description="The message is not signed, or not by a secret that is known here."),
    403: OpenApiResponse(Error, description="This installation has no builders outside of it."),
    409: OpenApiResponse(Error, description="The same message is still being dealt with."),
    422: OpenApiResponse(Error, description="This `webhook-id` came with another message before."),
}
_OF_BUILD = {
    **_REFUSALS,
    404: OpenApiResponse(Error, description="There is no such build."),
    409: OpenApiResponse(Error, description="The build is not, or no longer, the sender's. Nothing was changed."),
}


class SignedView(RateLimitedMixin, APIView):
    """Authorised by the signature of each message. Rates are limited only where it is missing or bad."""

    authentication_classes = (SignatureAuthentication,)
    permission_classes = ()
    content_negotiation_class = AnyAccept
    body: type[CamelSerializer]

    def check_throttles(self, request: Request) -> None:
        """Whoever has the secret may."""

    def done_once(self, request: Request) -> HttpResponseBase:
        """The answer that the message got before, or that of `work`, which keeps it."""
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
        """Do what the message asks for, and keep the answer in the same transaction."""
        raise NotImplementedError

    def kept(self, claimed: Claim, document: dict[str, Any] | None) -> HttpResponse:
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
            200: OpenApiResponse(TakenDocument, description="It is yours until its lease runs out."),
            204: OpenApiResponse(description="Nothing waits for an external builder."),
            **_REFUSALS,
        },
    )
    def post(self, request: Request) -> HttpResponseBase:
        """Take the next build that waits for a builder outside of this system."""
        return self.done_once(request)

    @transaction.atomic
    def work(self, claimed: Claim, data: dict[str, Any]) -> HttpResponse:
        taken = external.take(data["worker"])
        return self.kept(claimed, self._document(taken) if taken else None)

    def _document(self, taken: external.Taken) -> dict[str, Any]:
        archive = {
            "url": address(self.request, "worker-archive", Link.of(taken.build).token),
            "expires_at": timezone.now() + timedelta(seconds=LINK_SECONDS),
        }
        context = {"request": self.request, "environment": taken.environment, "archive": archive}
        return dict(TakenDocument(taken.build, context=context).data)


class HeartbeatView(SignedView):
    body = WorkerHeartbeat

    @extend_schema(operation_id="keepBuild", request=WorkerHeartbeat, responses={200: KeptDocument, **_OF_BUILD})
    def post(self, request: Request) -> HttpResponseBase:
        """Keep a claimed build for another lease. A refusal says to stop: it was cancelled, or given to another."""
        return self.done_once(request)

    @transaction.atomic
    def work(self, claimed: Claim, data: dict[str, Any]) -> HttpResponse:
        expiry = external.renew(data["job_id"], data["fence"])
        return self.kept(claimed, dict(KeptDocument({**data, "lease_expires_at": expiry}).data))


class ResultView(SignedView):
    body = WorkerResult

    @extend_schema(operation_id="reportResult", request=WorkerResult, responses={200: ReportedDocument, **_OF_BUILD})
    def post(self, request: Request) -> HttpResponseBase:
        """Report the end of a claimed build, with its log and its artifacts. A refused report leaves nothing behind."""
        return self.done_once(request)

    def work(self, claimed: Claim, data: dict[str, Any]) -> HttpResponse:
        result = external.Result(
            job_id=data["job_id"],
            fence=data["fence"],
            is_completed=data["status"] == "completed",
            verdict=data.get("verdict", {}),
            logs=data.get("logs", ()),
            files=data.get("artifacts", ()),
        )
        # The store is no part of the transaction: files come in before it, and go again if it does not come to its end.
        with external.reported(result) as report, transaction.atomic():
            return self.kept(claimed, dict(ReportedDocument(report.record()).data))


class ArchiveView(RateLimitedMixin, APIView):
    """Serves whoever has the address, and limits the rate of those who guess."""

    authentication_classes = (LinkAuthentication,)
    permission_classes = ()
    content_negotiation_class = AnyAccept

    def check_throttles(self, request: Request) -> None:
        """Whoever was given the address may."""

    @extend_schema(
        operation_id="getClaimedArchive",
        auth=[],
        responses={
            (200, "application/gzip"): OpenApiTypes.BINARY,
            403: OpenApiResponse(Error, description="The address is not, or no longer, good."),
        },
    )
    def get(self, request: Request, token: str) -> HttpResponseBase:
        """The source files of a claimed build as a tar.gz, from the address that its claim was answered with."""
        link = cast(Link, request.auth)
        try:
            build = external.held(link.job_id, link.fence)
        except RefusalError as refusal:
            raise invalid_link() from refusal
        return send_archive(request, build.revision)
