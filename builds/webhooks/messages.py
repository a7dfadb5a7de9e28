"""The content of messages and their signatures: Standard Webhooks. Knows no receivers and no HTTP."""

import base64
import json
import secrets
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.urls import reverse
from django.utils import timezone
from standardwebhooks import Webhook

from builds.models import EVENT_NAMES, TEST_EVENT, BuildEvent
from chef.jobs.models import TERMINAL
from projects.api.documents import milliseconds

SECRET_BYTES = 32


def new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def body_of(event: BuildEvent) -> bytes:
    """The message about one change of a build's status, as of that change."""
    build, changed_at = event.build, event.created_at
    is_over = event.to_status in TERMINAL
    data = {
        "projectId": str(build.project_id),
        "projectName": build.project.name,
        "jobId": str(build.pk),
        "number": build.number,
        "status": event.to_status,
        "attempt": event.fence,
        "revision": build.revision.number,
        "retryOf": _text(build.retry_of_id),
        "repairOf": _text(build.repair_of_id),
        "generationId": _text(build.generation_id),
        "createdAt": _time(build.created_at),
        "startedAt": _time(build.started_at) if build.started_at and build.started_at <= changed_at else None,
        "finishedAt": _time(build.finished_at) if build.finished_at and is_over else None,
        "durationMs": milliseconds(build.started_at, build.finished_at) if is_over else None,
        "verdict": event.data.get("verdict"),
        "links": _links(build.pk, build.project_id),
    }
    return _packed(EVENT_NAMES[event.to_status], changed_at, data)


def test_body(endpoint_id: UUID) -> bytes:
    return _packed(TEST_EVENT, timezone.now(), {"webhookId": str(endpoint_id), "message": "Chef can reach you."})


def headers_of(delivery_id: UUID, body: bytes, keys: list[str], *, now: datetime) -> dict[str, str]:
    """Signature headers with one signature per key; a receiver needs to know only one of the keys."""
    signatures = [Webhook(key).sign(str(delivery_id), now, body.decode()) for key in keys]
    return {
        "Content-Type": "application/json",
        "User-Agent": "Chef-Webhooks/1",
        "webhook-id": str(delivery_id),
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _packed(name: str, moment: datetime, data: dict[str, Any]) -> bytes:
    message = {"type": name, "timestamp": _time(moment), "data": data}
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _links(build_id: UUID, project_id: UUID) -> dict[str, str]:
    """Links from CHEF_URL; without it they are paths, because there is no request to take a host from."""
    query = f"?jobId={build_id}"
    return {
        "self": settings.CHEF_URL + reverse("build-detail", args=[build_id]),
        "logs": settings.CHEF_URL + reverse("project-logs", args=[project_id]) + query,
        "artifacts": settings.CHEF_URL + reverse("project-artifacts", args=[project_id]) + query,
        "page": settings.CHEF_URL + reverse("build-page", args=[build_id]),
    }


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _text(value: UUID | None) -> str | None:
    return str(value) if value else None
