"""Who runs what next. The database is the queue; Redis is only a doorbell.

An RQ job carries nothing but "there may be work": whoever answers claims the best build from the database. A claim
raises the build's fence and takes a lease, and every later write of that attempt goes through the lease.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import redis
import rq
from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection, transaction
from django.db.models import Count, F, IntegerField, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone
from redis.backoff import NoBackoff
from redis.retry import Retry

from builds.models import Attempt, Build, BuildQuerySet, OwnerTurn, Status, TransitionRefused
from builds.verdicts import verdict

logger = logging.getLogger(__name__)

QUEUE_NAME = "builds"


class LeaseLost(Exception):
    """The build is no longer this attempt's: kill your own container and leave, writing nothing."""


class QueueFull(Exception):
    """The installation has as many queued builds as it takes. `retry_after`: seconds until there may be room."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(
            f"The queue is full: {settings.MAX_QUEUED:,} builds wait, as many as this installation takes. "
            f"Nothing has been kept of this request: send it again in {retry_after} s."
        )
        self.retry_after = retry_after


class OwnerQueueFull(Exception):
    """The owner has as many queued builds as one may. `retry_after`: seconds until there may be room."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(
            f"You have {settings.OWNER_MAX_QUEUED:,} builds waiting, as many as one owner may. Nothing has been kept "
            f"of this request: cancel builds that you no longer need, or send it again in {retry_after} s."
        )
        self.retry_after = retry_after


# --- The doorbell ------------------------------------------------------------------------------------------------


@cache
def _bell() -> rq.Queue:
    # Its own short time-outs, and no retries: a request must not wait for a Redis that is down or hangs.
    client = redis.Redis.from_url(
        settings.REDIS_URL, socket_connect_timeout=1, socket_timeout=2, retry=Retry(NoBackoff(), 0)
    )
    return rq.Queue(QUEUE_NAME, connection=client, default_timeout=-1)


def ring(times: int = 1) -> bool:
    """Tell the workers that there may be work. False when Redis did not answer: the reaper rings again later."""
    try:
        for _ in range(times):
            _bell().enqueue("builds.tasks.run_next", result_ttl=0, failure_ttl=3600, job_timeout=-1)
    except redis.RedisError as fault:
        logger.warning("the doorbell did not ring (%s); the reaper will ring again", fault)
        return False
    return True


def bells_waiting() -> int:
    """How many bells no worker has answered yet. Raises redis.RedisError."""
    return int(_bell().count)


# --- Claiming ----------------------------------------------------------------------------------------------------


def in_claim_order(now: Any) -> BuildQuerySet:
    """Eligible builds as they are claimed: by priority, then the owner's running builds, the owner's last turn, age.

    The fewest running go first, then who was served longest ago, or never: with one worker, nothing runs when it
    claims, and turns alone keep a long queue of one owner from starving the others. Builds of an owner at the limit
    of running builds are left out: they wait without blocking others. `owner_turn` is the owner's last turn.
    builds.forecast predicts this order: change both.
    """
    running = (
        Build.objects.filter(owner=OuterRef("owner"), status=Status.RUNNING)
        .order_by()
        .values("owner")
        .annotate(count=Count("pk"))
        .values("count")
    )
    queued = Build.objects.eligible(now).annotate(
        owner_running=Coalesce(Subquery(running, output_field=IntegerField()), 0),
        owner_turn=F("owner__ownerturn__claimed_at"),
    )
    if settings.OWNER_MAX_RUNNING:
        queued = queued.filter(owner_running__lt=settings.OWNER_MAX_RUNNING)
    turn = F("owner_turn").asc(nulls_first=True)
    return queued.order_by("-priority", "owner_running", turn, "created_at", "pk")


def claim(worker: str) -> "Lease | None":
    """Take the best eligible build, or None when there is nothing to do.

    PostgreSQL skips rows that another worker is claiming; SQLite has one writer at a time, so plain
    compare-and-set suffices there. Claims of one owner's builds go one after the other, by the owner's turn: each
    sees what the one before has started, so that the order and the limit hold however many claim at once.
    """
    while True:
        try:
            with transaction.atomic():
                queued = in_claim_order(timezone.now())
                if connection.features.has_select_for_update_skip_locked:
                    queued = queued.select_for_update(skip_locked=True, of=("self",))
                build = queued.first()
                if build is None:
                    return None
                _take_turn(build.owner_id, since=build.owner_turn)  # type: ignore[attr-defined]  # annotated
                return Lease(build, _start_attempt(build, worker))
        except TransitionRefused:
            continue  # another worker was first: look again


def _take_turn(owner: int, *, since: datetime | None) -> None:
    """Note that the owner is served now. Raises TransitionRefused when that has happened after the turn `since`.

    The row is locked until the claim is committed. Nobody waits for another lock while holding it: every claim locks
    a build that others skip, then this, so claims cannot deadlock.
    """
    now = timezone.now()
    if since is None:
        is_first = OwnerTurn.objects.get_or_create(owner_id=owner, defaults={"claimed_at": now})[1]
    else:
        # Later than the last turn even where clocks differ: an unchanged turn has to mean that nobody was served.
        later = max(now, since + timedelta(microseconds=1))
        is_first = bool(OwnerTurn.objects.filter(owner=owner, claimed_at=since).update(claimed_at=later))
    if not is_first:
        raise TransitionRefused(f"owner {owner} has been served since")


def _start_attempt(build: Build, worker: str) -> Attempt:
    now, fence = timezone.now(), build.fence + 1
    build.transition_to(
        Status.RUNNING,
        fence=fence,
        worker=worker,
        lease_expires_at=now + timedelta(seconds=settings.LEASE_SECONDS),
        started_at=build.started_at or now,
        phase="",
        progress=0,
        log_bytes=0,
        log_truncated=False,
        usage={},
        egress=[],
    )
    return Attempt.objects.create(build=build, number=fence, worker=worker, started_at=now)


class Lease:
    """The right of one attempt to write about its build, kept alive by a heartbeat of its own.

    `lost` is set as soon as the right is gone (another worker, a cancel, no database for a whole lease);
    `interrupted` when this process has been told to stop and the build has to go back to the queue.
    """

    def __init__(self, build: Build, attempt: Attempt) -> None:
        self.build = build
        self.attempt = attempt
        self.fence = attempt.number
        self.lost = threading.Event()
        self.interrupted = threading.Event()
        self._ended = threading.Event()
        self._heartbeat: threading.Thread | None = None

    @property
    def must_stop(self) -> bool:
        return self.lost.is_set() or self.interrupted.is_set()

    @contextlib.contextmanager
    def writing(self, **changes: Any) -> Iterator[None]:
        """A transaction in which this attempt may write. Raises LeaseLost, and writes nothing, when it may not.

        The update of the build's own row is the check and the lock at once: no claim or transition can come
        between it and what is written inside.
        """
        with transaction.atomic():
            changes.setdefault("fence", self.fence)
            if not Build.objects.held(self.build.pk, self.fence).update(**changes):
                self.lost.set()
                raise LeaseLost(f"build {self.build.pk} is no longer held under fence {self.fence}")
            yield

    def end(self, status: Status, *, outcome: str = "", **changes: Any) -> None:
        """The attempt's last write: give the build its next status. Raises LeaseLost when it is not ours any more."""
        try:
            self.build.transition_to(status, outcome=outcome, **changes)
        except TransitionRefused as refusal:
            self.lost.set()
            raise LeaseLost(str(refusal)) from refusal

    @contextlib.contextmanager
    def kept_alive(self, *, should_hand_back: Callable[[], bool] = lambda: False) -> Iterator["Lease"]:
        """Renew the lease from a thread until the block ends; `should_hand_back` is asked about once a second."""
        self._heartbeat = threading.Thread(
            target=self._beat, args=(should_hand_back,), name="lease-heartbeat", daemon=True
        )
        self._heartbeat.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._heartbeat.join(timeout=5)

    def _beat(self, should_hand_back: Callable[[], bool]) -> None:
        deadline = time.monotonic() + settings.LEASE_SECONDS
        try:
            while not self._ended.wait(min(1.0, settings.LEASE_SECONDS / 4)):
                if should_hand_back():
                    self.interrupted.set()
                if self._renew():
                    deadline = time.monotonic() + settings.LEASE_SECONDS
                elif time.monotonic() > deadline:
                    # Without a database for a whole lease, another worker may hold the build by now.
                    self.lost.set()
                if self.lost.is_set():
                    return
        finally:
            connection.close()

    def _renew(self) -> bool:
        expiry = timezone.now() + timedelta(seconds=settings.LEASE_SECONDS)
        try:
            if Build.objects.held(self.build.pk, self.fence).update(lease_expires_at=expiry):
                return True
            self.lost.set()
        except DatabaseError as fault:
            logger.warning("build %s: the lease was not renewed: %s", self.build.pk, fault)
            close_old_connections()
        return False


def backoff(faults: int) -> timedelta:
    """How long a build waits after its n-th infra fault: 2 s, 4 s, 8 s, ..."""
    return timedelta(seconds=2 ** max(1, faults))


def after_fault(build: Build, code: str, *, evidence: str) -> tuple[Status, dict[str, Any]]:
    """What an infra fault makes of a running build: the next status, and the columns that go with it.

    Back to the queue with back-off; failed, with the verdict `attempts_exhausted`, when the attempts are spent.
    """
    faults = build.faults + 1
    if faults >= settings.MAX_ATTEMPTS:
        last = verdict("attempts_exhausted", phase=build.phase, evidence=[f"{code}: {evidence}"])
        return Status.FAILED, {"outcome": code, "faults": faults, "verdict": last.as_json()}
    later = timezone.now() + backoff(faults)
    return Status.QUEUED, {"outcome": code, "faults": faults, "available_at": later, "phase": "", "progress": 0}
