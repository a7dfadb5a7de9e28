"""How the installation runs, for operators: workers, queue, recent failures, disk space.

A handful of bounded queries: statistics use at most the newest SAMPLE builds of a week.
"""

import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, NamedTuple

import redis
import rq
from django.conf import settings
from django.db.models import Count, Exists, F, FloatField, Func, Max, Min, OuterRef, Q
from django.db.models.fields.json import KT

from builds.heartbeats import SILENCE
from builds.models import HOST_SILENCE, Build, Delivery, Heartbeat, Priority, WebhookEndpoint, WorkerHost
from builds.operations.health import MOST_COUNTED
from builds.queue.claims import LOCAL_BUILDS
from chef.jobs.models import TERMINAL, Status
from chef.jobs.wakeups import WorkerQueue
from projects.generations.queue import GENERATIONS
from projects.models import Generation, Quarantine

SAMPLE = 20_000
DAY, WEEK = timedelta(days=1), timedelta(days=7)
MOST_WAITING = 10_000


# --- Now ---------------------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """The waiting builds of one priority and owner, and since when the oldest waits."""

    priority: str
    owner: str
    is_external: bool
    waiting: int
    oldest: datetime
    held: int  # in quarantined projects


@dataclass(frozen=True)
class Present:
    """Running builds, earliest lease expiry first, and waiting builds by priority."""

    running: Sequence[Mapping[str, Any]]
    waiting: Sequence[Line]
    depth: int
    held: int
    oldest: datetime | None
    is_cut: bool  # there are more than MOST_WAITING: the count stops there

    @property
    def abandoned(self) -> Sequence[Mapping[str, Any]]:
        """Builds whose lease has expired: the reaper should have taken them."""
        return [row for row in self.running if row["lease_left"] < 0]

    @property
    def reaper_lag(self) -> float:
        """How many seconds the reaper is late for abandoned builds."""
        return max((-row["lease_left"] for row in self.abandoned), default=0.0)


def present(now: datetime) -> Present:
    """One query."""
    columns = (
        *("pk", "status", "priority", "is_external", "created_at", "started_at", "lease_expires_at", "worker"),
        *("phase", "fence", "number", "held"),
    )
    active = Build.objects.filter(Q(status=Status.QUEUED) | Q(status=Status.RUNNING)).annotate(
        held=Exists(Quarantine.objects.filter(project=OuterRef("project"))),
        owned_by=F("owner__username"),
        project_name=F("project__name"),
    )
    running_first = active.order_by("-status", "created_at")
    rows = list(running_first.values(*columns, "owned_by", "project_name")[: MOST_WAITING + 1])
    running = [row for row in rows if row["status"] == Status.RUNNING]
    for row in running:
        row["lease_left"] = (row["lease_expires_at"] - now).total_seconds()
    queued = [row for row in rows if row["status"] == Status.QUEUED]
    return Present(
        running=sorted(running, key=lambda row: row["lease_left"]),
        waiting=_lines(queued),
        depth=len(queued),
        held=sum(row["held"] for row in queued),
        oldest=min((row["created_at"] for row in queued), default=None),
        is_cut=len(rows) > MOST_WAITING,
    )


def _lines(queued: Iterable[Mapping[str, Any]]) -> list[Line]:
    parts: dict[tuple[int, str, bool], list[Mapping[str, Any]]] = defaultdict(list)
    for row in queued:
        parts[row["priority"], row["owned_by"], row["is_external"]].append(row)
    ordered = sorted(parts.items(), key=lambda part: (-part[0][0], -len(part[1]), part[0][1]))
    return [
        Line(
            Priority(priority).label,
            owner,
            is_external,
            len(rows),
            min(row["created_at"] for row in rows),
            sum(row["held"] for row in rows),
        )
        for (priority, owner, is_external), rows in ordered
    ]


# --- Recent builds ---------------------------------------------------------------------------------------------------


class Seconds(Func):
    """A time as seconds since 1970: reading these is several times as fast for thousands of rows."""

    output_field = FloatField()

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="EXTRACT(EPOCH FROM %(expressions)s)::float8", **context)

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "(julianday(%(expressions)s) - 2440587.5) * 86400.0"
        return self.as_sql(compiler, connection, template=template, **context)


class Past(NamedTuple):
    """A finished build; times are seconds since 1970."""

    status: str
    verdict_class: str
    code: str | None
    created_at: float
    started_at: float | None
    finished_at: float


@dataclass(frozen=True)
class Span:
    """Builds of a period: counts by status, causes of failure, and times of waiting and running in seconds."""

    name: str
    counts: Mapping[str, int]
    classes: Sequence[tuple[str, int]]
    codes: Sequence[tuple[str, str, int]]
    waited: tuple[float, float] | None  # the median and the 95th percentile
    took: tuple[float, float] | None

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def failed_share(self) -> int:
        return round(100 * self.counts.get("failed", 0) / self.total) if self.total else 0


@dataclass(frozen=True)
class Bar:
    """Builds that ended within one hour or day."""

    label: str
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Lately:
    day: Span
    week: Span
    hours: Sequence[Bar]
    days: Sequence[Bar]
    is_cut: bool  # there were more than SAMPLE: the week's figures begin at `since`
    since: datetime | None = field(default=None)


def lately(now: datetime) -> Lately:
    """One query, of the newest builds."""
    newest = Build.objects.filter(created_at__gte=now - WEEK).order_by("-created_at", "-pk")
    times = [Seconds(name) for name in ("created_at", "started_at", "finished_at")]
    rows = list(newest.values_list("status", "verdict_class", KT("verdict__code"), *times)[:SAMPLE])
    ended = [Past(*row) for row in rows if row[0] in TERMINAL]
    yesterday = (now - DAY).timestamp()
    return Lately(
        day=_span("the last 24 hours", [row for row in ended if row.finished_at > yesterday]),
        week=_span("the last 7 days", ended),
        hours=_bars(ended, now, timedelta(hours=1), 24, "{:%H}:00"),
        days=_bars(ended, now, DAY, 7, "{:%a %d}"),
        is_cut=len(rows) == SAMPLE,
        since=datetime.fromtimestamp(rows[-1][3], UTC) if rows else None,
    )


def _span(name: str, rows: Sequence[Past]) -> Span:
    failed = [row for row in rows if row.status == Status.FAILED]
    codes = Counter((row.code or "?", row.verdict_class) for row in failed)
    return Span(
        name,
        Counter(row.status for row in rows),
        Counter(row.verdict_class for row in failed).most_common(),
        [(code, cls, count) for (code, cls), count in codes.most_common(8)],
        _percentiles(row.started_at - row.created_at for row in rows if row.started_at),
        _percentiles(
            row.finished_at - row.started_at for row in rows if row.started_at and row.status != Status.CANCELLED
        ),
    )


def _percentiles(seconds: Iterable[float]) -> tuple[float, float] | None:
    ordered = sorted(seconds)
    if not ordered:
        return None
    return ordered[ceil(0.5 * len(ordered)) - 1], ordered[ceil(0.95 * len(ordered)) - 1]


def _bars(rows: Iterable[Past], now: datetime, width: timedelta, count: int, label: str) -> list[Bar]:
    """The last `count` hours or days, oldest first, the current one included."""
    start = now.replace(hour=now.hour if width < DAY else 0, minute=0, second=0, microsecond=0)
    first = start - (count - 1) * width
    found: list[Counter[str]] = [Counter() for _ in range(count)]
    for row in rows:
        place = int((row.finished_at - first.timestamp()) // width.total_seconds())
        if 0 <= place < count:
            found[place][row.status] += 1
    return [Bar(label.format(first + number * width), counts) for number, counts in enumerate(found)]


# --- What it stands on -------------------------------------------------------------------------------------------


def hosts(now: datetime) -> list[dict[str, Any]]:
    rows = WorkerHost.objects.order_by("name")
    return [{"host": row, "is_there": row.seen_at > now - HOST_SILENCE, "engine": row.engine or {}} for row in rows]


def services(now: datetime) -> list[dict[str, Any]]:
    """The reaper and the sender: on which machines, and whether they are alive. At least one row each."""
    seen = list(Heartbeat.objects.order_by("service", "-seen_at"))
    rows: list[dict[str, Any]] = [{"name": beat.service, "host": beat.host, "seen_at": beat.seen_at} for beat in seen]
    missing = {service.value for service in Heartbeat.Service} - {beat.service for beat in seen}
    rows += [{"name": name, "host": "", "seen_at": None} for name in sorted(missing)]
    return [{**row, "is_there": bool(row["seen_at"] and row["seen_at"] > now - SILENCE)} for row in rows]


def deliveries(now: datetime) -> dict[str, Any]:
    """Waiting deliveries, and when one was last sent. Two queries."""
    pending = Delivery.objects.filter(status=Delivery.Status.PENDING).order_by()
    is_due = Q(next_try_at__lte=now)
    waiting = pending[:MOST_COUNTED].aggregate(
        pending=Count("pk"), due=Count("pk", filter=is_due), oldest=Min("next_try_at", filter=is_due)
    )
    served = WebhookEndpoint.objects.aggregate(
        last=Max("served_at"),
        failing=Count("pk", filter=Q(failing_since__isnull=False, disabled_at=None)),
        switched_off=Count("pk", filter=Q(disabled_at__isnull=False)),
    )
    return {**waiting, **served}


def generations() -> dict[str, Any]:
    active = Generation.objects.filter(Q(status=Status.QUEUED) | Q(status=Status.RUNNING))
    return active.aggregate(
        queued=Count("pk", filter=Q(status=Status.QUEUED)),
        running=Count("pk", filter=Q(status=Status.RUNNING)),
        oldest=Min("created_at", filter=Q(status=Status.QUEUED)),
    )


def redis_queues() -> dict[str, Any]:
    """The state of Redis: `fault`, or its response time, what it holds, and each queue's wake-ups and workers."""
    served = [queue.workers for queue in (LOCAL_BUILDS, GENERATIONS) if queue.workers]
    began = time.perf_counter()
    try:
        info: dict[str, Any] = served[0].rq.connection.info()
        took = time.perf_counter() - began
        queues = [_redis_queue(queue) for queue in served]
    except redis.RedisError as fault:
        return {"fault": f"{type(fault).__name__}: {fault}"[:300]}
    details = {"version": info.get("redis_version"), "memory": info.get("used_memory")}
    return {"fault": "", "milliseconds": round(1000 * took, 1), "queues": queues, **details}


def _redis_queue(queue: WorkerQueue) -> dict[str, Any]:
    return {"name": queue.name, "pending": queue.pending(), "workers": rq.Worker.count(queue=queue.rq)}


def disks() -> list[dict[str, Any]]:
    """The file systems that this process writes to, each once, with free bytes."""
    seen: dict[int, dict[str, Any]] = {}
    for name, folder in (("Data folder", settings.DATA_DIR), ("Artifacts", settings.ARTIFACTS_DIR)):
        try:
            usage, device = shutil.disk_usage(folder), folder.stat().st_dev
        except OSError:
            continue  # it is created when something is first stored there
        row = {"name": name, "free": usage.free, "total": usage.total, "share": round(100 * usage.used / usage.total)}
        seen.setdefault(device, row)
    return list(seen.values())
