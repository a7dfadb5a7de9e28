"""A POST that is sent twice is done once: the `Idempotency-Key` header, or the id of a signed message.

The key's row is committed before the handler starts, so that a parallel repeat sees it; what the handler writes and
the answer that is kept are then committed in one transaction. A process that dies in between leaves a lock that runs
out, and nothing else. Knows nothing of what a handler does; handlers must have no effect that a rollback leaves.
"""

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.datastructures import MultiValueDict
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from chef.storage.sealing import ANSWERS, Unreadable, seal, unseal
from projects.models import IdempotencyKey

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 1
WAIT_PAUSE_SECONDS = 0.05
KEPT_HEADERS = ("Content-Type", "Location", "Preference-Applied", "ETag", "Cache-Control")
# Visible ASCII; in quotes, as the IETF's draft has it, or without.
KEY_PATTERN = '^(?:[!#-~]{1,255}|"[!#-~]{1,255}")$'


class InvalidKey(ValidationError):
    """Not a key; the error names no field of the body."""

    def __init__(self) -> None:
        super().__init__(
            "Send an Idempotency-Key of 1 to 255 visible ASCII characters other than quotes, such as a UUID.",
            code="invalid_idempotency_key",
        )


class KeyReused(APIException):
    status_code = 422
    default_code = "idempotency_key_reused"
    default_detail = "This Idempotency-Key was sent with another request: send a new key, or the same request."


class InProgress(APIException):
    status_code = 409
    default_code = "idempotency_in_progress"
    default_detail = "The first request with this Idempotency-Key is still under way: send it again in a second."
    wait = RETRY_AFTER_SECONDS


@dataclass(frozen=True)
class Claim:
    """The right to do the request of a key; it ends with keep() or release(), or when its lock runs out."""

    pk: int
    locked_until: Any

    def keep(self, response: HttpResponse) -> None:
        """Keep the rendered answer, within the transaction of its effect. Raises InProgress when the lock was lost."""
        kept = self._mine().update(status_code=response.status_code, locked_until=None, answer=_packed(response))
        if not kept:
            raise InProgress

    def release(self) -> None:
        """Make the key free again; nothing was done with it."""
        try:
            self._mine().delete()
        except DatabaseError as fault:
            logger.warning("an idempotency key stays locked for %s: %s", _lock(), fault)

    def _mine(self) -> Any:
        return IdempotencyKey.objects.filter(pk=self.pk, locked_until=self.locked_until, status_code=None)


def claim(owner_id: int | None, key: str, fingerprint: str) -> Claim | HttpResponse:
    """The right to do this request, or the answer that it got before. Raises KeyReused or InProgress.

    Without an owner, the key is the id of a message whose signature is its authority.
    """
    for _ in range(5):  # each further round: another request changed the row in between
        row = IdempotencyKey.objects.filter(owner=owner_id, key=key).first()
        claimed = _insert(owner_id, key, fingerprint) if row is None else _judge(row, fingerprint)
        if claimed is not None:
            return claimed
    raise InProgress


def claim_or_wait(owner_id: int | None, key: str, fingerprint: str, *, seconds: float) -> Claim | HttpResponse:
    """As `claim`; while the same request is under way, its answer is waited for. Raises KeyReused or InProgress."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return claim(owner_id, key, fingerprint)
        except InProgress:
            if time.monotonic() >= deadline:
                raise
        connection.close()  # back to the pool: many may wait, and the one that they wait for needs it
        time.sleep(WAIT_PAUSE_SECONDS)


def _insert(owner_id: int | None, key: str, fingerprint: str) -> Claim | None:
    now = timezone.now()
    row = IdempotencyKey(
        owner_id=owner_id, key=key, fingerprint=fingerprint, created_at=now, locked_until=now + _lock()
    )
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        return None
    return Claim(row.pk, row.locked_until)


def _judge(row: IdempotencyKey, fingerprint: str) -> Claim | HttpResponse | None:
    now = timezone.now()
    is_dead = row.locked_until is not None and row.locked_until <= now
    if row.locked_until is None and row.created_at <= _oldest():
        IdempotencyKey.objects.filter(pk=row.pk, created_at=row.created_at).delete()
        return None
    # What a dead request has asked for was rolled back, so any request may have the key.
    if row.fingerprint != fingerprint and not is_dead:
        raise KeyReused
    if row.locked_until is None:
        return _unpacked(row)
    if not is_dead:
        raise InProgress
    taken = Claim(row.pk, now + _lock())
    changes = {"locked_until": taken.locked_until, "fingerprint": fingerprint, "created_at": now}
    return taken if Claim(row.pk, row.locked_until)._mine().update(**changes) else None


def amend(owner_id: int, key: str, before: int, response: HttpResponse) -> None:
    """Keep another answer for a key, where the kept one was of the status `before`: the work has gone on since."""
    rows = IdempotencyKey.objects.filter(owner=owner_id, key=key, status_code=before)
    rows.update(status_code=response.status_code, answer=_packed(response))


def forget_old_keys() -> int:
    """Remove the keys that are kept no longer. Returns how many."""
    return IdempotencyKey.objects.filter(created_at__lte=_oldest()).delete()[0]


def _lock() -> timedelta:
    return timedelta(seconds=settings.IDEMPOTENCY_LOCK_SECONDS)


def _oldest() -> Any:
    return timezone.now() - timedelta(hours=settings.IDEMPOTENCY_HOURS)


# --- The kept answer: a line of JSON with status headers, then the body's bytes -----------------------------------
# One that nobody else may store, since it tells a secret, is sealed.


def _packed(response: HttpResponse) -> bytes:
    headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
    packed = json.dumps(headers).encode() + b"\n" + response.content
    return seal(packed.decode(), ANSWERS).encode() if headers.get("Cache-Control") == "no-store" else packed


def _unpacked(row: IdempotencyKey) -> HttpResponse:
    """The answer again. Raises KeyReused when it was sealed with a key that is gone: it is not made a second time."""
    packed = bytes(row.answer)
    if not packed.startswith(b"{"):
        try:
            packed = unseal(packed.decode(), ANSWERS).encode()
        except Unreadable:
            detail = "The answer to the first request cannot be read any more: send a new Idempotency-Key."
            raise KeyReused(detail) from None
    headers, _, body = packed.partition(b"\n")
    return HttpResponse(body, status=row.status_code, headers={**json.loads(headers), "Idempotency-Replayed": "true"})


# --- What counts as the same request -----------------------------------------------------------------------------


def fingerprint_of(method: str, path: str, data: Any) -> str:
    """SHA-256 of the method, the path with its query, and the parsed body.

    Parsed, so that the order of names, white space and a multipart's boundary make no difference, and a large body
    is not copied: never more than one string or one piece of a file at a time.
    """
    digest = hashlib.sha256()
    waiting: list[Any] = [data, path, method]
    while waiting:  # no recursion: how deep a body is nested is the client's choice
        value = waiting.pop()
        if isinstance(value, MultiValueDict):
            value = dict(value.lists())
        if isinstance(value, dict):
            digest.update(b"{%d;" % len(value))
            waiting += [part for name in sorted(value) for part in (value[name], name)]
        elif isinstance(value, list | tuple):
            digest.update(b"[%d;" % len(value))
            waiting += value
        elif isinstance(value, UploadedFile):
            _add_file(digest, value)
        else:
            _add_plain(digest, value)
    return digest.hexdigest()


def _add_plain(digest: Any, value: Any) -> None:
    # The type is told apart, so that "1" and 1 differ; a lone surrogate is text too.
    text = (value if isinstance(value, str) else repr(value)).encode("utf-8", "surrogatepass")
    digest.update(b"%s:%d:" % (type(value).__name__.encode(), len(text)))
    digest.update(text)


def _add_file(digest: Any, file: "UploadedFile[Any]") -> None:
    digest.update(b"file:%d:" % (file.size or 0))
    for piece in file.chunks():
        digest.update(piece)
    file.seek(0)


# --- In a view ---------------------------------------------------------------------------------------------------


def key_of(request: Request) -> str | None:
    """The request's key, if it has one; `"k"`, the quoted form of the IETF draft, is the key `k`."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not re.fullmatch(KEY_PATTERN, key):
        raise InvalidKey
    return key.strip('"')


class IdempotentMixin:
    """For an APIView or ViewSet, left of it: every POST of it may carry an Idempotency-Key."""

    def initial(self: Any, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)  # type: ignore[misc]
        handler = getattr(self, "post", None)
        if request.method == "POST" and handler and (key := key_of(request)) is not None:
            # dispatch() looks its handler up after this; of a ViewSet too, whose actions are set on the instance.
            self.post = lambda *args, **kwargs: self._once(key, handler, *args, **kwargs)

    def _once(
        self: Any, key: str, handler: Callable[..., Any], request: Request, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        # The body is read and parsed here: the transaction must not wait for it.
        fingerprint = fingerprint_of("POST", request.get_full_path(), request.data)
        claimed = claim(self.request.user.pk, key, fingerprint)
        if isinstance(claimed, HttpResponse):
            return claimed
        try:
            with transaction.atomic():
                response = self.finalize_response(request, handler(request, *args, **kwargs), *args, **kwargs)
                is_done: bool = 200 <= response.status_code < 300
                if is_done:
                    claimed.keep(response.render() if isinstance(response, Response) else response)
                else:
                    transaction.set_rollback(True)
        except BaseException:
            claimed.release()
            raise
        if not is_done:
            claimed.release()
        return response  # type: ignore[no-any-return]
