"""Which build runs next. The database is the queue, Redis only wakes workers: see chef.jobs.models."""

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count, Exists, F, IntegerField, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from builds.models import Attempt, Build, BuildQuerySet, OutsideTurn, OwnerTurn, QueuePause, Turn
from builds.verdicts.evidence import verdict
from chef.jobs.leases import Lease
from chef.jobs.models import Status, TransitionRefusedError, backoff
from chef.jobs.wakeups import Doorbell
from projects.models import Quarantine

bell = Doorbell("builds", "builds.tasks.run_next")

# --- Claiming ----------------------------------------------------------------------------------------------------


def in_claim_order(now: Any, *, is_external: bool = False) -> BuildQuerySet:
    """Eligible builds of a queue as they are claimed: by priority, the owner's running builds, the owner's turn, age.

    The fewest running go first, then who was served longest ago, or never: with one worker, nothing runs when it
    claims, and turns alone keep a long queue of one owner from starving the others. Builds of an owner at the limit
    of running builds are left out: they wait without blocking others. So are all while the queue is paused, and
    those of projects in quarantine. `owner_turn` is the owner's last turn. What runs in the other queue counts for
    nothing here. builds.queue.forecast predicts this order: change both.
    """
    running = (
        Build.objects.filter(owner=OuterRef("owner"), status=Status.RUNNING, is_external=is_external)
        .order_by()
        .values("owner")
        .annotate(count=Count("pk"))
        .values("count")
    )
    queued = (
        _let_run(Build.objects.filter(is_external=is_external))
        .eligible(now)
        .annotate(
            owner_running=Coalesce(Subquery(running, output_field=IntegerField()), 0),
            owner_turn=F(f"owner__{_turns(is_external)._meta.model_name}__claimed_at"),
        )
    )
    if settings.OWNER_MAX_RUNNING:
        queued = queued.filter(owner_running__lt=settings.OWNER_MAX_RUNNING)
    turn = F("owner_turn").asc(nulls_first=True)
    return queued.order_by("-priority", "owner_running", turn, "created_at", "pk")


def _let_run(builds: BuildQuerySet) -> BuildQuerySet:
    quarantine = Quarantine.objects.filter(project=OuterRef("project"))
    return builds.filter(~Exists(QueuePause.objects.all()), ~Exists(quarantine))


def _turns(is_external: bool) -> type[Turn]:
    return OutsideTurn if is_external else OwnerTurn


def claim(worker: str, *, is_external: bool = False) -> "BuildLease | None":
    """Take the best eligible build of one queue, or None when there is nothing to do.

    PostgreSQL skips rows that another worker is claiming; SQLite has one writer at a time, so plain
    compare-and-set suffices there. Claims of one owner's builds go one after the other, by the owner's turn: each
    sees what the one before has started, so that the order and the limit hold however many claim at once.
    """
    while True:
        try:
            with transaction.atomic():
                queued = in_claim_order(timezone.now(), is_external=is_external)
                if connection.features.has_select_for_update_skip_locked:
                    queued = queued.select_for_update(skip_locked=True, of=("self",))
                build = queued.first()
                if build is None:
                    return None
                # Asked again, now that nobody else can change the build: a pause or a quarantine that was committed
                # after the first look is seen by this one.
                if not _let_run(Build.objects.filter(pk=build.pk)).exists():
                    raise TransitionRefusedError(f"build {build.pk} must not run any more")
                since = build.owner_turn  # type: ignore[attr-defined]  # annotated
                _take_turn(_turns(is_external), build.owner_id, since=since)
                return BuildLease(build, _start_attempt(build, worker))
        except TransitionRefusedError:
            continue  # another worker was first: look again


def _take_turn(turns: type[Turn], owner: int, *, since: datetime | None) -> None:
    """Note that the owner is served now.

    Raises TransitionRefusedError when that has happened after the turn `since`. The row is locked until the claim is
    committed. Nobody waits for another lock while holding it: every claim locks a build that others skip, then this,
    so claims cannot deadlock.
    """
    now = timezone.now()
    rows = turns._default_manager
    if since is None:
        is_first = rows.get_or_create(owner_id=owner, defaults={"claimed_at": now})[1]
    else:
        # Later than the last turn even where clocks differ: an unchanged turn has to mean that nobody was served.
        later = max(now, since + timedelta(microseconds=1))
        is_first = bool(rows.filter(owner=owner, claimed_at=since).update(claimed_at=later))
    if not is_first:
        raise TransitionRefusedError(f"owner {owner} has been served since")


def _start_attempt(build: Build, worker: str) -> Attempt:
    build.start(worker, phase="", progress=0, log_bytes=0, log_truncated=False, usage={}, egress=[])
    return Attempt.objects.create(build=build, number=build.fence, worker=worker, started_at=timezone.now())


class BuildLease(Lease[Build]):
    """The right of one attempt to write about its build."""

    def __init__(self, build: Build, attempt: Attempt) -> None:
        super().__init__(build)
        self.attempt = attempt

    @property
    def build(self) -> Build:
        return self.job


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
