"""Loaded by schemathesis: signs requests to the external builders' endpoints, and fills in ids of claimed builds."""

import os
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import requests
import schemathesis
from schemathesis.core.parameters import ParameterLocation
from standardwebhooks import Webhook

# "operation job" pairs: builds claimed with fence 1.
CLAIMED = dict(pair.split() for pair in os.environ["CLAIMED_BUILDS"].split(","))


class Signature(requests.auth.AuthBase):
    """Signs the exact bytes that are sent."""

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
        """None if the request is meant to lack a header, or to have an invalid one."""
        is_wrong = case.meta and case.meta.is_negative_at(ParameterLocation.HEADER)
        return None if is_wrong else Signature()

    def set(self, case: Any, signature: Signature, context: Any) -> None:
        case._auth = signature


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Point valid bodies at a claimed build."""
    job = CLAIMED.get(case.operation.path.rpartition("-")[2])
    if job and isinstance(case.body, dict) and case.meta and case.meta.generation.mode.is_positive:
        case.body = {**case.body, "jobId": job, "fence": 1}
