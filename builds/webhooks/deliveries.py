"""Which delivery is sent next, and its claims, leases and retries. The database is the queue.

A claim raises the delivery's fence, takes a lease and records the try; it is committed before anything is sent. If a
sender dies, its lease expires and the delivery is sent again: delivery is at least once.
"""

import email.utils
import random
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef
from django.utils import timezone

from builds.models import Delivery, DeliveryTry, WebhookEndpoint
from builds.webhooks.endpoints import Origin, Reason, keys_of, switch_off
from builds.webhooks.transport import Answer
from chef.storage.sealing import UnsealError

GONE = 410
# The largest share of the sender's threads for failing endpoints, and for one owner's endpoints.
SHARE = 0.5
_JITTER = 0.25
_PART = 200


@dataclass(frozen=True)
class Outgoing:
    """A claimed delivery, with all that sending needs, so that the sending threads need no database."""

    id: UUID
    endpoint_id: UUID
    owner_id: int | None
    fence: int
    number: int  # the number of this try
    url: str
    is_ours: bool  # see guard.parse
    has_trouble: bool
    body: bytes = field(repr=False)
    keys: list[str] | None = field(repr=False)  # None: the secret cannot be decrypted with this installation's keys


# --- Claiming ----------------------------------------------------------------------------------------------------


def claim(room: int, under_way: Collection[Outgoing] = ()) -> list[Outgoing]:
    """Claim up to `room` deliveries that are due; `under_way` are those this sender has already.

    Endpoints take turns: the one served longest ago is next. Failing endpoints, and those of one owner, never get more
    than their share of the sender, so that they do not delay others.
    """
    taken: list[Outgoing] = []
    seen: set[UUID] = set()
    for has_trouble in (False, True):
        are_all = False
        while not are_all:
            wanted = room - len(taken)
            endpoints = _endpoints_due(has_trouble, [*under_way, *taken], seen, wanted)
            are_all = len(endpoints) < wanted or not wanted
            for endpoint in endpoints:
                most = min(room - len(taken), _share_left(endpoint, [*under_way, *taken]))
                taken += _claim_of(endpoint.pk, most) if most > 0 else []
                seen.add(endpoint.pk)
    return taken


def _endpoints_due(
    has_trouble: bool, under_way: Sequence[Outgoing], seen: Collection[UUID], most: int
) -> list[WebhookEndpoint]:
    """Endpoints with something due that are below their limit of concurrent deliveries."""
    share = _share()
    if has_trouble and sum(outgoing.has_trouble for outgoing in under_way) >= share:
        return []
    due = Delivery.objects.due(timezone.now()).filter(endpoint=OuterRef("pk"))
    endpoints = WebhookEndpoint.objects.active().filter(Exists(due), failing_since__isnull=not has_trouble)
    of_each = Counter(outgoing.endpoint_id for outgoing in under_way)
    full = {pk for pk, count in of_each.items() if count >= settings.WEBHOOK_PER_ENDPOINT}
    endpoints = endpoints.exclude(pk__in=full | set(seen))
    for owner_id, count in Counter(outgoing.owner_id for outgoing in under_way).items():
        if count >= share:
            endpoints = endpoints.exclude(owner=owner_id)
    return list(endpoints.order_by(F("served_at").asc(nulls_first=True))[:most])


def _share() -> int:
    return max(1, int(settings.WEBHOOK_CONCURRENCY * SHARE))


def _share_left(endpoint: WebhookEndpoint, under_way: Sequence[Outgoing]) -> int:
    of_owner = sum(outgoing.owner_id == endpoint.owner_id for outgoing in under_way)
    in_trouble = sum(outgoing.has_trouble for outgoing in under_way) if endpoint.failing_since else 0
    return _share() - max(of_owner, in_trouble)


def _claim_of(endpoint_id: UUID, most: int) -> list[Outgoing]:
    with transaction.atomic():
        # Locked, so that several senders together keep to the endpoint's limit.
        endpoint = WebhookEndpoint.objects.locked(endpoint_id, skip=True)
        if endpoint is None or not endpoint.is_active:
            return []
        now = timezone.now()
        under_way = Delivery.objects.filter(endpoint=endpoint, status="pending", lease_expires_at__gte=now).count()
        rows = _next_of(endpoint, now, min(most, settings.WEBHOOK_PER_ENDPOINT - under_way))
        if rows:
            _take(endpoint, rows, now)
    return [_outgoing(endpoint, row) for row in rows]


def _next_of(endpoint: WebhookEndpoint, now: datetime, most: int) -> list[Delivery]:
    """The due deliveries in order, at most one per build: later ones wait for its result."""
    due = Delivery.objects.due(now).filter(endpoint=endpoint).order_by("next_try_at", "position")
    chosen: dict[UUID, UUID] = {}  # by what they wait for: a build, or nothing
    # In batches, not in one query: without statistics, PostgreSQL compares all pairs.
    start, is_more = 0, most > 0
    while is_more and len(chosen) < most:
        part = list(due.values_list("pk", "job_id", "position")[start : start + _PART])
        first = Delivery.objects.all().first_to_wait_for(endpoint, {job for _, job, _ in part if job})
        for pk, job, position in part:
            if job is None or position <= first.get(job, position):
                chosen.setdefault(job or pk, pk)
        start, is_more = start + _PART, len(part) == _PART
    pks = list(chosen.values())[: max(0, most)]
    rows = Delivery.objects.in_bulk(pks)
    return [rows[pk] for pk in pks if pk in rows]


def _take(endpoint: WebhookEndpoint, rows: Sequence[Delivery], now: datetime) -> None:
    pks = [row.pk for row in rows]
    Delivery.objects.filter(pk__in=pks).update(
        fence=F("fence") + 1,
        tries=F("tries") + 1,
        is_untried=False,
        # Longer than a try may take, plus the time a process may be silent.
        lease_expires_at=now + timedelta(seconds=settings.WEBHOOK_TIMEOUT + settings.LEASE_SECONDS),
    )
    unfinished = DeliveryTry.objects.filter(delivery__in=pks, is_over=False)
    unfinished.update(
        is_over=True, error="interrupted", detail="The sender died, or lost its connection to the database."
    )
    DeliveryTry.objects.bulk_create(DeliveryTry(delivery=row, number=row.tries + 1, started_at=now) for row in rows)
    WebhookEndpoint.objects.filter(pk=endpoint.pk).update(served_at=now)


def _outgoing(endpoint: WebhookEndpoint, row: Delivery) -> Outgoing:
    try:
        keys = keys_of(endpoint)
    except UnsealError:
        keys = None
    return Outgoing(
        id=row.pk,
        endpoint_id=endpoint.pk,
        owner_id=endpoint.owner_id,
        fence=row.fence + 1,
        number=row.tries + 1,
        url=endpoint.url,
        is_ours=endpoint.origin == Origin.SETTING,
        has_trouble=endpoint.failing_since is not None,
        body=bytes(row.body),
        keys=keys,
    )


# --- What becomes of it ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    """A sent delivery and its result, with start and end by the monotonic clock."""

    outgoing: Outgoing
    answer: Answer
    began: float
    ended: float

    @property
    def is_too_late(self) -> bool:
        """Whether its lease has expired, so that it may be sent again regardless of our result."""
        return time.monotonic() - self.began > settings.WEBHOOK_TIMEOUT + settings.LEASE_SECONDS


def settle(endpoint_id: UUID, all_done: Sequence[Done]) -> int:
    """Record the results of tries of one endpoint. Returns how many: the others are no longer ours."""
    with transaction.atomic():
        # In the order in which claims lock.
        endpoint = WebhookEndpoint.objects.locked(endpoint_id)
        if endpoint is None:
            return 0
        rows = Delivery.objects.defer("body").in_bulk([done.outgoing.id for done in all_done])
        ours = [done for done in all_done if _is_held(rows.get(done.outgoing.id), done.outgoing)]
        for done in ours:
            _settle_one(endpoint, rows[done.outgoing.id], done)
    return len(ours)


def _is_held(delivery: Delivery | None, outgoing: Outgoing) -> bool:
    return delivery is not None and delivery.fence == outgoing.fence


def _settle_one(endpoint: WebhookEndpoint, delivery: Delivery, done: Done) -> None:
    now, answer = timezone.now(), done.answer
    DeliveryTry.objects.filter(delivery=delivery, number=done.outgoing.number, is_over=False).update(
        is_over=True,
        duration_ms=round((done.ended - done.began) * 1000),
        status_code=answer.status,
        error=answer.error,
        detail=answer.detail[:300],
        answer=answer.text,
    )
    delivery.lease_expires_at = None
    if answer.is_good:
        delivery.status, delivery.finished_at = Delivery.Status.DELIVERED, now
    elif delivery.status == Delivery.Status.PENDING:
        _put_off(delivery, endpoint, answer, now)
    delivery.save(update_fields=["status", "finished_at", "next_try_at", "lease_expires_at"])
    _note(endpoint, answer, now)


def _put_off(delivery: Delivery, endpoint: WebhookEndpoint, answer: Answer, now: datetime) -> None:
    """When to try next; none when the delivery has expired, or its endpoint has been switched off."""
    if now >= delivery.give_up_at or not endpoint.is_active:
        delivery.status, delivery.finished_at = Delivery.Status.FAILED, now
    else:
        delivery.next_try_at = min(now + wait_after(delivery.tries, answer, now), delivery.give_up_at)


def wait_after(tries: int, answer: Answer, now: datetime) -> timedelta:
    """How long a delivery waits after its n-th try: about twice as long each time, at least what Retry-After asks."""
    most = settings.WEBHOOK_RETRY_MAX_SECONDS
    # More doublings than any limit needs; yet more would overflow.
    wait = min(most, settings.WEBHOOK_RETRY_SECONDS * 2.0 ** min(tries - 1, 40))
    # Jitter, so that deliveries that failed together are not retried together.
    wait *= random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
    return timedelta(seconds=max(wait, min(_asked_wait(answer.retry_after, now), most)))


def _asked_wait(retry_after: str, now: datetime) -> float:
    """Retry-After in seconds, given as a number or a date; 0 when it is missing or invalid."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        moment = email.utils.parsedate_to_datetime(retry_after)
        return max(0.0, (moment - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _note(endpoint: WebhookEndpoint, answer: Answer, now: datetime) -> None:
    """Update the (locked) endpoint's own state from an answer."""
    if not endpoint.is_active or (answer.is_good and endpoint.failing_since is None):
        return
    if answer.is_good:
        endpoint.failing_since = None
    elif answer.status == GONE:
        switch_off(endpoint, Reason.GONE)
    else:
        endpoint.failing_since = endpoint.failing_since or now
        if now - endpoint.failing_since >= timedelta(days=settings.WEBHOOK_DISABLE_DAYS):
            switch_off(endpoint, Reason.FAILING)
    endpoint.save(update_fields=["failing_since", "disabled_at", "disabled_reason"])
