"""API: webhooks, their deliveries, and replays."""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework.decorators import action
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from builds.api.documents.webhooks import DeliveryDocument, NewWebhookDocument, Replayed, WebhookDocument
from builds.api.requests import DeliveriesQuery, NewWebhook, Nothing, ReplayedRange, WebhookChanges, WebhooksQuery
from builds.api.webhook_fields import UrlViewSet
from builds.models import Delivery, WebhookEndpoint
from builds.webhooks import endpoints, outbox
from projects.models import Project

EXAMPLE = OpenApiExample(
    "Results of all projects",
    value={"url": "https://example.com/hooks/chef", "events": ["build.completed", "build.failed", "build.cancelled"]},
    request_only=True,
)
RANGE_EXAMPLE = OpenApiExample(
    "Failed deliveries of one day",
    value={"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "status": "failed"},
    request_only=True,
)


def forbid_caching_secret(response: Response, secret: str | None) -> Response:
    """The response, with caching forbidden if it contains a secret."""
    if secret:
        response.headers["Cache-Control"] = "no-store"
    return response


class WebhookViewSet(UrlViewSet):
    """The user's webhooks. Those of the installation are in the admin."""

    lookup_value_converter = "uuid"
    url_name = "url"
    url_actions = frozenset({"create", "partial_update"})

    def webhooks(self) -> QuerySet[WebhookEndpoint]:
        return WebhookEndpoint.objects.filter(owner=self.user.pk)

    @extend_schema(operation_id="listWebhooks", parameters=[WebhooksQuery], responses=WebhookDocument(many=True))
    def list(self, request: Request) -> Response:
        """Webhooks, newest first."""
        query = WebhooksQuery.of(request)
        where = {"project": query["project"]} if "project" in query else {}
        return self.page(self.webhooks().filter(**where), WebhookDocument)

    @extend_schema(
        operation_id="createWebhook", request=NewWebhook, responses={201: NewWebhookDocument}, examples=[EXAMPLE]
    )
    def create(self, request: Request) -> Response:
        """Create a webhook. The answer contains the signing secret, which is shown only once."""
        data = self._validated(NewWebhook)
        endpoint, secret = endpoints.create_endpoint(
            by=self.user, url=data["url"], events=data["events"], project=self._project(data.get("project"))
        )
        response = self._with_secret(endpoint, secret, status=201)
        response.headers["Location"] = response.data["links"]["self"]
        return response

    @extend_schema(operation_id="getWebhook", responses=WebhookDocument)
    def retrieve(self, request: Request, pk: Any) -> Response:
        """One webhook."""
        return self._answer(self.get_or_404(self.webhooks(), pk=pk))

    @extend_schema(operation_id="changeWebhook", request=WebhookChanges, responses=WebhookDocument)
    def partial_update(self, request: Request, pk: Any) -> Response:
        """Change a webhook's URL or events, or disable and enable it.

        Deliveries that wait when it is disabled are given up; they can be replayed.
        """
        endpoint = self.get_or_404(self.webhooks(), pk=pk)
        return self._answer(endpoints.change_endpoint(endpoint, **self._validated(WebhookChanges)))

    @extend_schema(operation_id="deleteWebhook", responses={204: None})
    def destroy(self, request: Request, pk: Any) -> Response:
        """Delete a webhook with its deliveries."""
        endpoints.delete_endpoint(self.get_or_404(self.webhooks(), pk=pk))
        return Response(status=204)

    @extend_schema(operation_id="rotateWebhookSecret", request=Nothing, responses=NewWebhookDocument)
    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, pk: Any) -> Response:
        """Get a new secret. For a day, messages are also signed with the previous one."""
        endpoint, secret = endpoints.rotate_secret(self.get_or_404(self.webhooks(), pk=pk))
        return self._with_secret(endpoint, secret)

    @extend_schema(operation_id="testWebhook", request=Nothing, responses={202: DeliveryDocument})
    @action(detail=True, methods=["post"])
    def test(self, request: Request, pk: Any) -> Response:
        """Send a test message, `webhook.test`."""
        delivery = outbox.send_test(self.get_or_404(self.webhooks(), pk=pk))
        return Response(DeliveryDocument(delivery).data, status=202)

    @extend_schema(operation_id="listDeliveries", parameters=[DeliveriesQuery], responses=DeliveryDocument(many=True))
    @action(detail=True)
    def deliveries(self, request: Request, pk: Any) -> Response:
        """Deliveries of a webhook, newest first, with every try."""
        query = DeliveriesQuery.of(request)
        where = {column: query[name] for name, column in (("status", "status"), ("event", "name")) if name in query}
        rows = Delivery.objects.filter(endpoint=self.get_or_404(self.webhooks(), pk=pk), **where)
        return self.page(rows.prefetch_related("log"), DeliveryDocument)

    @extend_schema(
        operation_id="replayDelivery",
        request=Nothing,
        responses={202: OpenApiResponse(DeliveryDocument, description="It is sent again, unless a try is running.")},
    )
    @action(detail=True, methods=["post"], url_path="deliveries/<uuid:delivery>/replay", url_name="replay-delivery")
    def replay_delivery(self, request: Request, pk: Any, delivery: Any) -> Response:
        """Send a message again: same id, same bytes."""
        endpoint = self.get_or_404(self.webhooks(), pk=pk)
        rows = Delivery.objects.filter(endpoint=endpoint, pk=delivery)
        self.get_or_404(rows)
        outbox.replay(endpoint, rows)
        return Response(DeliveryDocument(self.get_or_404(rows.prefetch_related("log"))).data, status=202)

    @extend_schema(
        operation_id="replayDeliveries", request=ReplayedRange, responses={202: Replayed}, examples=[RANGE_EXAMPLE]
    )
    @action(detail=True, methods=["post"])
    def replay(self, request: Request, pk: Any) -> Response:
        """Send all messages of a period again, in order, with those missed while the webhook was disabled.

        At most 5,000 missed messages are created per request: repeat it while `replayed` is 5,000.
        """
        endpoint, data = self.get_or_404(self.webhooks(), pk=pk), self._validated(ReplayedRange)
        status, begin, end = data.get("status"), data["from"], data["to"]
        rows = Delivery.objects.filter(created_at__gte=begin, created_at__lte=end, finished_at__isnull=False)
        replayed = 0
        if status != ReplayedRange.MISSED:
            replayed += outbox.replay(endpoint, rows.filter(status=status) if status else rows)
        if status in (None, ReplayedRange.MISSED):
            replayed += outbox.tell_missed(endpoint, begin, end)
        return Response(Replayed({"replayed": replayed}).data, status=202)

    # --- Helpers ---------------------------------------------------------------------------------------

    def _validated(self, serializer: type[Any]) -> dict[str, Any]:
        body = serializer(data=self.request.data, context={"refusal": self.refusal})
        body.is_valid(raise_exception=True)
        return dict(body.validated_data)

    def _project(self, pk: Any) -> Project | None:
        if pk is None:
            return None
        project = Project.objects.filter(owner=self.user.pk, pk=pk).first()
        if project is None:
            detail = "You have no such project: `GET /v1/projects` lists your projects."
            raise ValidationError({"project": [ErrorDetail(detail, code="not_found")]})
        return project

    def _answer(self, endpoint: WebhookEndpoint) -> Response:
        return Response(WebhookDocument(endpoint, context={"request": self.request}).data)

    def _with_secret(self, endpoint: WebhookEndpoint, secret: str, *, status: int = 200) -> Response:
        context = {"request": self.request, "webhook_secret": secret}
        return forbid_caching_secret(
            Response(NewWebhookDocument(endpoint, context=context).data, status=status), secret
        )
