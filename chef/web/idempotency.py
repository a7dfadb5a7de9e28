"""Makes POST idempotent, by the `Idempotency-Key` header or the id of a signed message.

The key's row is committed before the handler starts, so that a parallel repeat sees it; the handler's writes and the
stored response are then committed in one transaction. A process that dies in between leaves only a lock, which
expires. Handlers must have no effects that a rollback does not undo. The table of keys is not known here: the setting
IDEMPOTENCY_KEYS names a KeyStore.
"""

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Protocol

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.db import DatabaseError, connection, transaction
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.datastructures import MultiValueDict
from django.utils.module_loading import import_string
from rest_framework.request import Request
from rest_framework.response import Response

from chef.refusals import RefusalError
from chef.storage.sealing import ANSWERS, UnsealError, seal, unseal

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 1
WAIT_PAUSE_SECONDS = 0.05
KEPT_HEADERS = ("Content-Type", "Location", "Preference-Applied", "ETag", "Cache-Control")
# Visible ASCII; with quotes, as in the IETF draft, or without.
KEY_PATTERN = '^(?:[!#-~]{1,255}|"[!#-~]{1,255}")$'


class InvalidKeyError(RefusalError):
    """The header is not a valid key. The error names no field, because the body is not at fault."""

    code, status = "invalid_idempotency_key", 400

    def __init__(self) -> None:
        super().__init__(
            "Send an Idempotency-Key of 1 to 255 visible ASCII characters other than quotes, such as a UUID."
        )


class KeyReusedError(RefusalError):
    """The key was used with a different request."""

    code, status = "idempotency_key_reused", 422


class InProgressError(RefusalError):
    """The first request with the key is still in progress."""

    code = "idempotency_in_progress"


def _reused(owner_id: int | None) -> KeyReusedError:
    if owner_id is None:
        detail = "This webhook-id was used with a different message: give each message its own id."
        return KeyReusedError(detail, code="message_id_reused")
    return KeyReusedError("This Idempotency-Key was used with another request: send a new key, or the same request.")


def _in_progress(owner_id: int | None) -> InProgressError:
    if owner_id is None:
        detail = "The same message is still being processed: send it again."
        return InProgressError(detail, code="message_in_progress")
    detail = "The first request with this Idempotency-Key is still in progress: send it again in a second."
    return InProgressError(detail, retry_after=RETRY_AFTER_SECONDS)


# --- Where keys are kept -----------------------------------------------------------------------------------------


class StoredKey(Protocol):
    """A key's row. `locked_until` is set while its request is in progress; `status_code` and `answer` once done."""

    @property
    def pk(self) -> int: ...

    @property
    def owner_id(self) -> int | None: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def created_at(self) -> datetime: ...

    @property
    def locked_until(self) -> datetime | None: ...

    @property
    def status_code(self) -> int | None: ...

    @property
    def answer(self) -> bytes | bytearray | memoryview: ...


class KeyStore(Protocol):
    """A table of keys, unique per owner, and among keys without one. Every change states the row it expects.

    Methods that change a row return whether the row was in the expected state; if not, nothing was written. All may
    raise DatabaseError.
    """

    def find(self, owner_id: int | None, key: str) -> StoredKey | None: ...

    def insert(
        self, owner_id: int | None, key: str, fingerprint: str, *, now: datetime, locked_until: datetime
    ) -> int | None:
        """The primary key of the new row; None when the key exists."""

    def take_over(self, pk: int, *, locked_until: datetime, fingerprint: str, now: datetime, until: datetime) -> bool:
        """Take over a row whose previous lock ended at `locked_until`, for another request."""

    def keep(self, pk: int, *, locked_until: datetime, status_code: int, answer: bytes) -> bool:
        """Store the response of the request that holds the lock, and unlock the row."""

    def release(self, pk: int, *, locked_until: datetime) -> None:
        """Delete a row that has this lock and no response."""

    def amend(self, owner_id: int, key: str, *, before: int, status_code: int, answer: bytes) -> None:
        """Replace a stored response that has the status `before`."""

    def forget(self, *, until: datetime, pk: int | None = None) -> int:
        """Delete rows created up to that time, or only one of them. Returns how many."""


@cache
def _store() -> KeyStore:
    store: KeyStore = import_string(settings.IDEMPOTENCY_KEYS)()
    return store


# --- Claims ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """The right to process a key's request; it ends with keep() or release(), or when its lock expires."""

    owner_id: int | None
    pk: int
    locked_until: datetime

    def keep(self, response: HttpResponse) -> None:
        """Store the response, in the same transaction as its effect. Raises InProgressError if the lock is lost."""
        answer = _packed(response)
        lock = self.locked_until
        if not _store().keep(self.pk, locked_until=lock, status_code=response.status_code, answer=answer):
            raise _in_progress(self.owner_id)

    def release(self) -> None:
        """Free the key: its request had no effect."""
        try:
            _store().release(self.pk, locked_until=self.locked_until)
        except DatabaseError as error:
            logger.warning("an idempotency key stays locked for %s: %s", _lock(), error)


def claim(owner_id: int | None, key: str, fingerprint: str) -> Claim | HttpResponse:
    """The right to process this request, or its earlier response. Raises KeyReusedError or InProgressError.

    Without an owner, the key is the id of a message that is authorised by its signature.
    """
    for _ in range(5):  # repeats only when another request changed the row in between
        row = _store().find(owner_id, key)
        claimed = _insert(owner_id, key, fingerprint) if row is None else _judge(row, fingerprint)
        if claimed is not None:
            return claimed
    raise _in_progress(owner_id)


def claim_or_wait(owner_id: int | None, key: str, fingerprint: str, *, seconds: float) -> Claim | HttpResponse:
    """Like `claim`, but waits for the response while the same request is in progress."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return claim(owner_id, key, fingerprint)
        except InProgressError:
            if time.monotonic() >= deadline:
                raise
        connection.close()  # back to the pool: many may wait, and the request they wait for needs one
        time.sleep(WAIT_PAUSE_SECONDS)


def _insert(owner_id: int | None, key: str, fingerprint: str) -> Claim | None:
    now = timezone.now()
    until = now + _lock()
    pk = _store().insert(owner_id, key, fingerprint, now=now, locked_until=until)
    return None if pk is None else Claim(owner_id, pk, until)


def _judge(row: StoredKey, fingerprint: str) -> Claim | HttpResponse | None:
    now = timezone.now()
    is_dead = row.locked_until is not None and row.locked_until <= now
    if row.locked_until is None and row.created_at <= _oldest():
        _store().forget(until=row.created_at, pk=row.pk)
        return None
    # A dead request was rolled back, so any request may take the key.
    if row.fingerprint != fingerprint and not is_dead:
        raise _reused(row.owner_id)
    if row.locked_until is None:
        return _unpacked(row)
    if not is_dead:
        raise _in_progress(row.owner_id)
    until = now + _lock()
    taken = _store().take_over(row.pk, locked_until=row.locked_until, fingerprint=fingerprint, now=now, until=until)
    return Claim(row.owner_id, row.pk, until) if taken else None


def amend(owner_id: int, key: str, before: int, response: HttpResponse) -> None:
    """Replace a key's stored response if it has the status `before`: the work has progressed since."""
    _store().amend(owner_id, key, before=before, status_code=response.status_code, answer=_packed(response))


def forget_old_keys() -> int:
    """Delete expired keys. Returns how many."""
    return _store().forget(until=_oldest())


def _lock() -> timedelta:
    return timedelta(seconds=settings.IDEMPOTENCY_LOCK_SECONDS)


def _oldest() -> datetime:
    return timezone.now() - timedelta(hours=settings.IDEMPOTENCY_HOURS)


# --- The kept answer: a line of JSON with status headers, then the body's bytes -----------------------------------
# A response marked no-store contains a secret, so it is sealed.


def _packed(response: HttpResponse) -> bytes:
    headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
    packed = json.dumps(headers).encode() + b"\n" + response.content
    return seal(packed.decode(), ANSWERS).encode() if headers.get("Cache-Control") == "no-store" else packed


def _unpacked(row: StoredKey) -> HttpResponse:
    """The stored response. Raises KeyReusedError when its encryption key is gone: it cannot be created again."""
    packed = bytes(row.answer)
    if not packed.startswith(b"{"):
        try:
            packed = unseal(packed.decode(), ANSWERS).encode()
        except UnsealError:
            detail = "The response to the first request can no longer be read: send a new Idempotency-Key."
            raise KeyReusedError(detail) from None
    headers, _, body = packed.partition(b"\n")
    return HttpResponse(body, status=row.status_code, headers={**json.loads(headers), "Idempotency-Replayed": "true"})


# --- What counts as the same request -----------------------------------------------------------------------------


def fingerprint_of(method: str, path: str, data: Any) -> str:
    """SHA-256 of the method, the path with its query, and the parsed body.

    Parsed, so that key order, white space and multipart boundaries make no difference, and a large body is not copied:
    at most one string or one chunk of a file at a time.
    """
    digest = hashlib.sha256()
    waiting: list[Any] = [data, path, method]
    while waiting:  # no recursion: the client decides how deeply a body is nested
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
    # With the type, so that "1" and 1 differ; surrogatepass, because a lone surrogate is text too.
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
    """The request's key, if it has one; `"k"`, the IETF draft's quoted form, is the key `k`."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not re.fullmatch(KEY_PATTERN, key):
        raise InvalidKeyError
    return key.strip('"')


class IdempotentMixin:
    """Mix in before APIView or ViewSet: every POST may carry an Idempotency-Key."""

    def initial(self: Any, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)  # type: ignore[misc]
        handler = getattr(self, "post", None)
        if request.method == "POST" and handler and (key := key_of(request)) is not None:
            # dispatch() looks up its handler after this, also in a ViewSet, whose actions are set on the instance.
            self.post = lambda *args, **kwargs: self._once(key, handler, *args, **kwargs)

    def _once(
        self: Any, key: str, handler: Callable[..., Any], request: Request, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        # Read and parse the body here: the transaction must not wait for it.
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
