"""The table of idempotency keys for `chef.web.idempotency`. The setting IDEMPOTENCY_KEYS names it."""

from datetime import datetime

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from projects.models import IdempotencyKey


class IdempotencyKeys:
    """A chef.web.idempotency.KeyStore."""

    def find(self, owner_id: int | None, key: str) -> IdempotencyKey | None:
        return IdempotencyKey.objects.filter(owner=owner_id, key=key).first()

    def insert(
        self, owner_id: int | None, key: str, fingerprint: str, *, now: datetime, locked_until: datetime
    ) -> int | None:
        row = IdempotencyKey(
            owner_id=owner_id, key=key, fingerprint=fingerprint, created_at=now, locked_until=locked_until
        )
        try:
            with transaction.atomic():
                row.save(force_insert=True)
        except IntegrityError:
            return None
        return row.pk

    def take_over(self, pk: int, *, locked_until: datetime, fingerprint: str, now: datetime, until: datetime) -> bool:
        rows = self._locked(pk, locked_until)
        return bool(rows.update(locked_until=until, fingerprint=fingerprint, created_at=now))

    def keep(self, pk: int, *, locked_until: datetime, status_code: int, answer: bytes) -> bool:
        rows = self._locked(pk, locked_until)
        return bool(rows.update(status_code=status_code, locked_until=None, answer=answer))

    def release(self, pk: int, *, locked_until: datetime) -> None:
        self._locked(pk, locked_until).delete()

    def amend(self, owner_id: int, key: str, *, before: int, status_code: int, answer: bytes) -> None:
        rows = IdempotencyKey.objects.filter(owner=owner_id, key=key, status_code=before)
        rows.update(status_code=status_code, answer=answer)

    def forget(self, *, until: datetime, pk: int | None = None) -> int:
        rows = IdempotencyKey.objects.filter(created_at__lte=until)
        return (rows if pk is None else rows.filter(pk=pk)).delete()[0]

    def _locked(self, pk: int, locked_until: datetime) -> "QuerySet[IdempotencyKey]":
        return IdempotencyKey.objects.filter(pk=pk, locked_until=locked_until, status_code=None)
