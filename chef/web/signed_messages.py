"""Messages from programs without a token, signed over their exact bytes by the Standard Webhooks specification.

Does not know what messages mean, or who may send which.
"""

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from standardwebhooks import Webhook, WebhookVerificationError

from chef.refusals import RefusalError

# The library's tolerance, in both directions.
TOLERANCE_SECONDS = 5 * 60
HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
_ID = re.compile(r"[!-~]{1,255}")


class NotSignedError(RefusalError):
    """The message was not signed with the secret within the last minutes."""

    code, status = "unsigned_message", 401


@dataclass(frozen=True)
class SignedMessage:
    """A message with a valid signature."""

    id: str
    body: bytes = field(repr=False)

    def fingerprint(self, path: str) -> str:
        """Digest of its path and every byte: differs for another message with the same id."""
        digest = hashlib.sha256(path.encode() + b"\n")
        digest.update(self.body)
        return digest.hexdigest()


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise NotSignedError if the headers alone show that it is invalid: the body need not be read then."""
    given = [headers.get(name, "") for name in HEADERS]
    if not all(given) or not _ID.fullmatch(given[0]):
        raise NotSignedError(f"Sign the message, and send {', '.join(HEADERS)}: see standardwebhooks.com.")
    if not _is_fresh(given[1]):
        detail = (
            f"The webhook-timestamp is not within {TOLERANCE_SECONDS} s of this server's clock: set the clock, and "
            "sign the message again."
        )
        raise NotSignedError(detail, code="message_too_old")


def verified(headers: Mapping[str, str], body: bytes, secrets: Sequence[str]) -> SignedMessage:
    """The message, if one of the secrets signed it within the last five minutes. Raises NotSignedError."""
    check_headers(headers)
    given = {name: headers[name] for name in HEADERS}
    if not any(_is_signed(given, body, secret) for secret in secrets):
        detail = "The signature does not match these bytes, id and time: sign exactly what is sent."
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
    except (WebhookVerificationError, ValueError):  # the library raises the latter for malformed base64 and UTF-8
        return False
    return True
