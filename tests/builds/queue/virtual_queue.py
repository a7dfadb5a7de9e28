"""A queue in virtual time: real claims on the real database, of builds with random durations."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from builds.models import Build, Priority, WorkerHost
from builds.queue import forecast
from builds.queue.claims import BuildLease, claim
from chef.jobs.models import Status
from projects.actions import add_revision, create_project
from projects.files.paths import NewFile
from projects.models import Project, Revision


@dataclass
class Kind:
    """Builds of one project, with their usual duration in seconds."""

    project: Project
    revision: Revision
    seconds: float
    numbers: int = 0


@dataclass
class Snapshot:
    """What was shown at one moment for every waiting build."""

    at: datetime
    claims: int  # the number of claims before
    documents: dict[UUID, dict[str, Any]]


@dataclass
class VirtualQueue:
    """`workers` claim from the database whenever they are free. Nothing takes real time.

    `spread` is that of the logarithm of durations: with 0.6, nine in ten take 0.4 to 2.7 times the usual duration.
    """

    monkeypatch: pytest.MonkeyPatch
    workers: int
    seed: int = 1
    spread: float = 0.6
    now: datetime = datetime(2030, 1, 1, tzinfo=UTC)
    claims: dict[UUID, tuple[int, datetime]] = field(default_factory=dict)  # builds in order, with times
    snapshots: list[Snapshot] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        self._busy: list[tuple[datetime, int, BuildLease]] = []
        self._seconds: dict[UUID, float] = {}
        self.monkeypatch.setattr(timezone, "now", lambda: self.now)
        seen_at = self.now + timedelta(days=1)  # longer than any run
        WorkerHost.objects.update_or_create(name="host", defaults={"workers": self.workers, "seen_at": seen_at})

    # --- Waiting and completed builds ------------------------------------------------------------------------------

    def kind(self, owner: User, *, seconds: float, past: int = 20) -> Kind:
        """A project with this many completed builds."""
        project = create_project(by=owner, name=f"takes {seconds:g} s")
        revision = add_revision(project, files=[NewFile("x.txt", b"x")], dependencies={}, strategy={})
        kind = Kind(project, revision, seconds)
        self._seconds[project.pk] = seconds
        for build in (builds := self._builds(kind, past)):
            took = timedelta(seconds=self._draw(seconds))
            build.started_at, build.finished_at = self.now - took, self.now
            build.status, build.fence = Status.COMPLETED, 1
        Build.objects.bulk_create(builds)
        return kind

    def add(self, kind: Kind, count: int, *, priority: Priority = Priority.NORMAL, back_off: float = 0) -> list[Build]:
        """Queue this many builds now, eligible in `back_off` seconds."""
        builds = self._builds(kind, count)
        for build in builds:
            self.now += timedelta(milliseconds=1)  # no two have the same age
            build.created_at, build.priority = self.now, priority
            build.available_at = self.now + timedelta(seconds=back_off)
        return Build.objects.bulk_create(builds)

    def _builds(self, kind: Kind, count: int) -> list[Build]:
        first = kind.numbers + 1
        kind.numbers += count
        shared = {"project": kind.project, "revision": kind.revision, "owner_id": kind.project.owner_id}
        return [Build(number=first + index, created_at=self.now, **shared) for index in range(count)]

    def _draw(self, seconds: float) -> float:
        return seconds * self._dice.lognormvariate(0, self.spread)

    # --- Time ------------------------------------------------------------------------------------------------------

    def show(self) -> dict[UUID, dict[str, Any]]:
        """The API's `queue` of all waiting builds, from a fresh read."""
        forecast.forget()
        shown = forecast.queue_documents(Build.objects.filter(status=Status.QUEUED))
        self.snapshots.append(Snapshot(self.now, len(self.claims), shown))
        return shown

    def claim_all(self) -> None:
        """Let every free worker claim."""
        while len(self._busy) < self.workers and (lease := claim("worker")):
            self.now += timedelta(microseconds=1)  # no two owners are served at the same moment
            self.claims[lease.build.pk] = len(self.claims) + 1, self.now
            end = self.now + timedelta(seconds=self._draw(self._seconds[lease.build.project_id]))
            heappush(self._busy, (end, len(self.claims), lease))

    def advance(self) -> bool:
        """Advance to the next end of a build or a back-off, and let free workers claim. False when all is done."""
        ends = [self._busy[0][0]] if self._busy else []
        returns = list(
            Build.objects.filter(status=Status.QUEUED, available_at__gt=self.now)
            .order_by("available_at")
            .values_list("available_at", flat=True)[:1]
        )
        if not ends + returns:
            return False
        self.now = min(ends + returns)
        if self.now in ends:
            heappop(self._busy)[2].end(Status.COMPLETED)
        self.claim_all()
        return True

    def play(self, *, show_every: int) -> None:
        """Run all builds to the end; record the forecast at first and after every `show_every` claims."""
        self.show()
        self.claim_all()
        while True:
            if len(self.claims) - self.snapshots[-1].claims >= show_every:
                self.show()
            if not self.advance():
                return

    # --- Forecast and reality --------------------------------------------------------------------------------------

    def outcomes(self) -> "list[Outcome]":
        return [
            Outcome(
                **document["etaSeconds"],
                position=document["position"],
                claimed=self.claims[pk][0] - snapshot.claims,
                waited=(self.claims[pk][1] - snapshot.at).total_seconds(),
            )
            for snapshot in self.snapshots
            for pk, document in snapshot.documents.items()
        ]


@dataclass(frozen=True)
class Outcome:
    """One build at one moment: the predicted and the actual position and seconds."""

    position: int
    p50: int
    p90: int
    claimed: int
    waited: float

    @property
    def is_in_time(self) -> bool:
        """Whether the wait was at least half and at most twice what was shown; times are shown in whole seconds."""
        return self.p50 / 2 - 1 <= self.waited <= 2 * self.p50 + 1

    @property
    def is_in_place(self) -> bool:
        return self.position / 2 <= self.claimed <= self.position * 2
