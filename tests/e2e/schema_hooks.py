"""Loaded by schemathesis: signs what goes to the doors for builders outside, and names builds that are held there."""

import os
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import requests
import schemathesis
from schemathesis.core.parameters import ParameterLocation
from standardwebhooks import Webhook

# "door job" pairs: builds that have been claimed under the fence 1.
HELD = dict(pair.split() for pair in os.environ["HELD_BUILDS"].split(","))


class Signature(requests.auth.AuthBase):
    """Over the bytes that are sent, whatever they are made of."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        body = request.body or b""
        text = body if isinstance(body, str) else body.decode("latin-1")
        message_id, now = f"msg_{uuid.uuid4().hex}", int(time.time())
        signature = Webhook(os.environ["CHEF_WORKER_SECRET"])
        request.headers["webhook-id"], request.headers["webhook-timestamp"] = message_id, str(now)
        at = datetime.fromtimestamp(now, tz=UTC)
        request.headers["webhook-signature"] = signature.sign(message_id, at, text)
        return request


@schemathesis.auth(refresh_interval=None).apply_to(path_regex="^/v1/hooks/worker-(claim|heartbeat|result)$")
class Signatures:
    def get(self, case: Any, context: Any) -> Signature | None:
        """None where a request shall lack a header, or have it wrong."""
        is_wrong = case.meta and case.meta.is_negative_at(ParameterLocation.HEADER)
        return None if is_wrong else Signature()

    def set(self, case: Any, signature: Signature, context: Any) -> None:
        case._auth = signature


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """A body that is right by the schema is one of a build that is there."""
    job = HELD.get(case.operation.path.rpartition("-")[2])
    if job and isinstance(case.body, dict) and case.meta and case.meta.generation.mode.is_positive:
        case.body = {**case.body, "jobId": job, "fence": 1}
