"""Shared by the tests of external builders: secrets and signed messages."""

import json
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from rest_framework.test import APIClient
from standardwebhooks import Webhook

SECRET = "whsec_" + "c2VjcmV0LW9mLXRoZS10ZXN0cy1vZi1idWlsZGVycw=="
ANOTHER_SECRET = "whsec_" + "YW5vdGhlci1zZWNyZXQtb2YtdGhlLXRlc3RzLi4uLi4="


def signed(body: bytes, *, secret: str = SECRET, message_id: str = "", age: float = 0) -> dict[str, str]:
    """Headers that sign a body as a message, as if `age` seconds ago."""
    message_id, at = message_id or f"msg_{uuid.uuid4().hex}", int(time.time() - age)
    signature = Webhook(secret).sign(message_id, datetime.fromtimestamp(at, tz=UTC), body.decode())
    return {"webhook-id": message_id, "webhook-timestamp": str(at), "webhook-signature": signature}


def send(hook: str, document: Any, **how: Any) -> Any:
    """Sign a message and send it to one of the hooks; returns the answer."""
    body = json.dumps(document).encode()
    return send_raw(hook, body, signed(body, **how))


def send_raw(hook: str, body: bytes, headers: dict[str, str]) -> Any:
    client: Any = APIClient(raise_request_exception=False)
    return client.generic("POST", f"/v1/hooks/worker-{hook}", body, "application/json", headers=headers)


def code(answer: Any) -> str:
    [error] = answer.json()["errors"]
    return str(error["code"])
