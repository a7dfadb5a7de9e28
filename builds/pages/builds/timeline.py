"""A build's attempts and phases as bars on one time scale. Pure except for one query."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from builds.models import Attempt, Build, PhaseName, PhaseRun

ATTEMPTS_SHOWN = 4
_LEAST_WIDTH = 0.6  # per cent: otherwise very short phases would be invisible
_COLUMNS = ("number", "outcome", "started_at", "finished_at", "worker")
_PHASE = ("phases__name", "phases__status", "phases__started_at", "phases__finished_at", "phases__exit_code")


@dataclass(frozen=True)
class Bar:
    """One phase; `x` and `width` are per cent of the total time."""

    name: str
    label: str
    status: str
    started_at: datetime
    finished_at: datetime | None
    exit_code: int | None
    x: float
    width: float

    @property
    def took(self) -> timedelta:
        return (self.finished_at or timezone.now()) - self.started_at

    @property
    def status_label(self) -> str:
        return str(PhaseRun.Status(self.status).label)


@dataclass(frozen=True)
class Row:
    """One attempt: its outcome and its phases."""

    number: int
    outcome: str
    worker: str
    started_at: datetime
    bars: list[Bar] = field(default_factory=list)

    @property
    def outcome_label(self) -> str:
        return self.outcome.replace("_", " ")


@dataclass(frozen=True)
class Timeline:
    """`left_out`: the number of earlier attempts without a row. The scale begins with the first row."""

    rows: list[Row]
    left_out: int
    waited: timedelta
    took: timedelta


def timeline_of(build: Build) -> Timeline:
    """The last attempts of a build: one query, for any number of attempts."""
    found = list(
        Attempt.objects.filter(build=build, number__gt=build.fence - ATTEMPTS_SHOWN)
        .order_by("number", "phases__id")
        .values(*_COLUMNS, *_PHASE)
    )
    now = timezone.now()
    begin = min((one["started_at"] for one in found), default=now)
    end = build.finished_at or now
    for one in found:  # clean-up may go on after the end
        end = max(end, one["phases__finished_at"] or end)
    whole = max((end - begin).total_seconds(), 0.001)
    rows: dict[int, Row] = {}
    for one in found:
        row = rows.setdefault(one["number"], Row(one["number"], one["outcome"], one["worker"], one["started_at"]))
        if one["phases__name"]:
            row.bars.append(_bar(one, begin, whole, now))
    waited = (build.started_at or build.finished_at or now) - build.created_at
    return Timeline(list(rows.values()), build.fence - len(rows), waited, end - begin)


def _bar(one: dict[str, Any], begin: datetime, whole: float, now: datetime) -> Bar:
    start, end = one["phases__started_at"], one["phases__finished_at"]
    x = 100 * (start - begin).total_seconds() / whole
    width = max(100 * ((end or now) - start).total_seconds() / whole, _LEAST_WIDTH)
    x = min(max(x, 0), 100 - _LEAST_WIDTH)
    return Bar(
        name=one["phases__name"],
        label=str(PhaseName(one["phases__name"]).label),
        status=one["phases__status"],
        started_at=start,
        finished_at=end,
        exit_code=one["phases__exit_code"],
        x=round(x, 2),
        width=round(min(width, 100 - x), 2),
    )
