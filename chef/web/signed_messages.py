"""Messages of programs that have no token: signed over their exact bytes, as the Standard Webhooks specification says.

Knows nothing of what a message asks for, nor of who may be asked.
"""

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from standardwebhooks import Webhook, WebhookVerificationError

from chef.refusals import RefusalError

# The library's own tolerance, to either side.
TOLERANCE_SECONDS = 5 * 60
HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
_ID = re.compile(r"[!-~]{1,255}")


class NotSignedError(RefusalError):
    """The message is not one that a holder of the secret has sent just now."""

    code, status = "unsigned_message", 401


@dataclass(frozen=True)
class SignedMessage:
    """A message whose signature is good."""

    id: str
    body: bytes = field(repr=False)

    def fingerprint(self, path: str) -> str:
        """What tells it from another message with the same id: where it was sent, and every byte of it."""
        digest = hashlib.sha256(path.encode() + b"\n")
        digest.update(self.body)
        return digest.hexdigest()


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise NotSignedError where the headers alone show that it is not signed just now: no body need be read then."""
    given = [headers.get(name, "") for name in HEADERS]
    if not all(given) or not _ID.fullmatch(given[0]):
        raise NotSignedError(f"Sign the message, and send {', '.join(HEADERS)}: see standardwebhooks.com.")
    if not _is_fresh(given[1]):
        detail = (
            f"The webhook-timestamp is not within {TOLERANCE_SECONDS} s of this server's clock: set the clock, and "
            "sign the message anew."
        )
        raise NotSignedError(detail, code="message_too_old")


def verified(headers: Mapping[str, str], body: bytes, secrets: Sequence[str]) -> SignedMessage:
    """The message, if one of the secrets has signed it within the last five minutes. Raises NotSignedError."""
    check_headers(headers)
    given = {name: headers[name] for name in HEADERS}
    if not any(_is_signed(given, body, secret) for secret in secrets):
        detail = "No secret here has signed these bytes with this id and time: sign exactly what is sent."
        raise NotSignedError(detail, code="invalid_signature")
    return SignedMessage(given["webhook-id"], body)


def _is_fresh(timestamp: str) -> bool:
    try:
        return abs(time.time() - float(timestamp)) <= TOLERANCE_SECONDS
    except ValueError:
        return False


def _is_signed(headers: dict[str, str], body: bytes, secret: str) -> bool:
    try:
        Webhook(secret).verify(body, headers, json_parse=False)
    except (WebhookVerificationError, ValueError):  # the library lets ill-formed base64 and UTF-8 through as the latter
        return False
    return True
