"""Forecasts a queued build's position and start, from the queue, the workers and past builds.

All of it is read and computed together, at most once a second per process, and shared by concurrent callers. Builds
that are not queued yet are ignored, though they may overtake waiting ones. builds.queue.simulation simulates the queue;
this module reads the database.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings
from django.db.models import Exists, F, OuterRef, Sum
from django.utils import timezone

from builds.models import HOST_SILENCE, Attempt, Build, QueuePause, WorkerHost
from builds.queue.simulation import Durations, Prediction, Running, Scene, Waiting, predict
from chef.jobs.models import Status
from projects.models import Quarantine

FRESH_SECONDS = 1.0
# A build queued after the last forecast triggers a new one at once, unless forecasts would take a fifth of the time.
REST_PER_READING = 5
# How many of the last completed builds count, and how many of one project are enough to predict that project alone.
HISTORY = 500
OWN_HISTORY = 5
# Retry-After, in seconds: if unknown, and the maximum.
USUAL_WAIT, LONGEST_WAIT = 60, 300


def queue_document(build: Build) -> dict[str, Any] | None:
    """The API's `queue` of a build; None when it is not queued."""
    return queue_documents([build]).get(build.pk)


def queue_documents(builds: Iterable[Build]) -> dict[UUID, dict[str, Any]]:
    """The API's `queue` of each queued build, by id, without queries per build.

    `position` is 1 + how many builds are expected to be claimed first. `etaSeconds` until the start is None while no
    worker is alive, the queue is paused, or no build has ever completed here, so that nothing can be computed. Builds
    for external builders have no estimate either, and are ordered by priority and age alone. Builds of projects in
    quarantine come last.
    """
    queued = [build for build in builds if build.status == Status.QUEUED]
    if not queued:
        return {}
    outlook = _outlook(build.pk for build in queued)
    return {build.pk: outlook.of(build) for build in queued}


def seconds_to_room(owner: int | None = None) -> int:
    """Seconds until a queued build of the owner, or of any owner, may start and leave the queue: 1 to 300."""
    outlook = _outlook()
    wait = outlook.next_start if owner is None else outlook.next_start_of.get(owner)
    return min(max(ceil(USUAL_WAIT if wait is None else wait), 1), LONGEST_WAIT)


# --- The shared forecast -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outlook:
    """The forecast for every queued build, as of `taken_at`; it took `cost` seconds to read and compute."""

    taken_at: datetime
    documents: Mapping[UUID, dict[str, Any]]
    external: Mapping[UUID, dict[str, Any]]  # the same for builds for external builders
    queued: Mapping[tuple[int, int], int]  # number of builds by (priority, owner)
    next_start_of: Mapping[int, float]  # by owner, in seconds
    next_start: float | None
    is_paused: bool
    cost: float

    def of(self, build: Build) -> dict[str, Any]:
        if build.is_external:
            return self.external.get(build.pk) or _external_document(len(self.external) + 1, self._pause)
        return self.documents.get(build.pk) or self._for_unknown(build)

    def knows(self, pk: UUID) -> bool:
        return pk in self.documents or pk in self.external

    @property
    def _pause(self) -> str | None:
        return "paused" if self.is_paused else None

    def _for_unknown(self, build: Build) -> dict[str, Any]:
        """For a build that was not in the queue then: it has been claimed, or was queued, since."""
        if max(build.created_at, build.available_at) < self.taken_at:
            return {"position": 1, "etaSeconds": {"p50": 0, "p90": 0}, "blockedBy": None}
        # As if no owner had been served yet: the next forecast, within a second, is exact.
        own = self.queued.get((build.priority, build.owner_id), 0)
        position = 1 + sum(
            count if priority > build.priority else min(count, own)
            for (priority, _), count in self.queued.items()
            if priority >= build.priority
        )
        # Values of the build whose position it takes, or of the last one.
        places = (document for document in self.documents.values() if document["position"] <= position)
        nearest = max(places, key=lambda document: int(document["position"]), default={})
        block = self._pause or nearest.get("blockedBy")
        return {"position": position, "etaSeconds": nearest.get("etaSeconds"), "blockedBy": block}


_lock = threading.Lock()
_last: tuple[float, Outlook] | None = None  # with its time.monotonic()


def _outlook(asked: Iterable[UUID] = ()) -> Outlook:
    """The last outlook while it is fresh, else a new one. Concurrent callers wait for it and share it."""
    global _last
    with _lock:
        if _last is None or not _is_good_enough(*_last, asked):
            outlook = look_ahead()
            _last = time.monotonic(), outlook
        return _last[1]


def _is_good_enough(read_at: float, outlook: Outlook, asked: Iterable[UUID]) -> bool:
    age = time.monotonic() - read_at
    if age >= FRESH_SECONDS:
        return False
    return age < outlook.cost * REST_PER_READING or all(outlook.knows(pk) for pk in asked)


def forget() -> None:
    """Drop the last outlook. For tests, in which the queue changes faster."""
    global _last
    with _lock:
        _last = None


# --- Read and compute --------------------------------------------------------------------------------------------


def look_ahead() -> Outlook:
    """Make a new outlook: four queries, regardless of the queue's length, and one prediction."""
    started, now = time.perf_counter(), timezone.now()
    history, workers, (waiting, is_paused) = _History(), _workers_alive(now), _queued()
    rows = [row for row in waiting if not (row.is_external or row.is_quarantined)]
    scene = Scene(
        waiting=[
            Waiting(row.owner, row.priority, (row.available_at - now).total_seconds(), history.of(row.project))
            for row in rows
        ],
        running=_running(now, history),
        served=_ranked({row.owner: row.served_at for row in rows if row.served_at}),
        workers=max(workers, 1),  # positions are useful even while no worker is alive
        owner_limit=settings.OWNER_MAX_RUNNING,
    )
    predictions = predict(scene)
    has_eta = bool(workers and history and not is_paused)
    first = _first_starts(scene, predictions) if has_eta else {}
    blocks = _Blocks(scene, predictions, workers, is_paused=is_paused)
    held = [row for row in waiting if row.is_quarantined and not row.is_external]
    return Outlook(
        taken_at=now,
        documents=_documents([row.pk for row in rows], scene, predictions, blocks, has_eta=has_eta)
        | {row.pk: _external_document(place, "quarantined") for place, row in enumerate(held, len(rows) + 1)},
        external=_external_documents([row for row in waiting if row.is_external], now, is_paused=is_paused),
        queued=Counter((build.priority, build.owner) for build in scene.waiting),
        next_start_of=first,
        next_start=min(first.values(), default=None),
        is_paused=is_paused,
        cost=time.perf_counter() - started,
    )


def _documents(
    ids: Sequence[UUID], scene: Scene, predictions: Sequence[Prediction], blocks: "_Blocks", *, has_eta: bool
) -> dict[UUID, dict[str, Any]]:
    return {
        pk: {
            "position": prediction.position,
            "etaSeconds": _eta(prediction) if has_eta else None,
            "blockedBy": blocks.of(build, prediction),
        }
        for pk, build, prediction in zip(ids, scene.waiting, predictions, strict=True)
    }


def _external_documents(rows: Sequence["_Queued"], now: datetime, *, is_paused: bool) -> dict[UUID, dict[str, Any]]:
    # A stable sort: the oldest come first among equals.
    ordered = sorted(rows, key=lambda row: (row.is_quarantined, -row.priority))
    return {
        row.pk: _external_document(place, _external_block(row, now, is_paused)) for place, row in enumerate(ordered, 1)
    }


def _external_block(row: "_Queued", now: datetime, is_paused: bool) -> str | None:
    if row.is_quarantined:
        return "quarantined"
    if is_paused:
        return "paused"
    return "backoff" if row.available_at > now else None


def _external_document(place: int, block: str | None) -> dict[str, Any]:
    return {"position": place, "etaSeconds": None, "blockedBy": block}


def _first_starts(scene: Scene, predictions: Sequence[Prediction]) -> dict[int, float]:
    first: dict[int, float] = {}
    for build, prediction in zip(scene.waiting, predictions, strict=True):
        first[build.owner] = min(prediction.p50, first.get(build.owner, prediction.p50))
    return first


def _eta(prediction: Prediction) -> dict[str, int]:
    p50 = round(prediction.p50)
    return {"p50": p50, "p90": max(ceil(prediction.p90), p50)}


class _Queued(NamedTuple):
    pk: UUID
    owner: int
    project: UUID
    priority: int
    available_at: datetime
    is_external: bool
    served_at: datetime | None  # when the owner was last served
    is_quarantined: bool
    is_paused: bool  # the same for all rows


def _queued() -> tuple[list[_Queued], bool]:
    """All queued builds, for our workers and external ones, oldest first; and whether the queue is paused."""
    columns = ("pk", "owner", "project", "priority", "available_at", "is_external", "owner__fairshare__claimed_at")
    queued = Build.objects.filter(status=Status.QUEUED).order_by("created_at", "pk")
    queued = queued.annotate(
        is_quarantined=Exists(Quarantine.objects.filter(project=OuterRef("project"))),
        is_paused=Exists(QueuePause.objects.all()),
    )
    rows = [_Queued(*row) for row in queued.values_list(*columns, "is_quarantined", "is_paused")]
    return rows, any(row.is_paused for row in rows)


def _workers_alive(now: datetime) -> int:
    return WorkerHost.objects.filter(seen_at__gt=now - HOST_SILENCE).aggregate(sum=Sum("workers"))["sum"] or 0


def _ranked(served: Mapping[int, datetime]) -> dict[int, int]:
    return {owner: rank for rank, owner in enumerate(sorted(served, key=served.__getitem__), 1)}


def _running(now: datetime, history: "_History") -> list[Running]:
    """The running builds, by the start of their current attempt."""
    attempts = Attempt.objects.filter(build__status=Status.RUNNING, build__is_external=False, number=F("build__fence"))
    return [
        Running(
            owner,
            history.of(project).remaining((now - started_at).total_seconds(), at_most=float(settings.WORKER_TIMEOUT)),
        )
        for owner, project, started_at in attempts.values_list("build__owner", "build__project", "started_at")
    ]


class _History:
    """Durations of the last builds that completed here at the first attempt. False when there are none."""

    def __init__(self) -> None:
        rows = (
            Build.objects.filter(status=Status.COMPLETED, is_external=False, fence=1)
            .order_by("-finished_at")
            .values_list("project", "started_at", "finished_at")[:HISTORY]
        )
        own: dict[UUID, list[float]] = {}
        for project, started_at, finished_at in rows:
            if started_at and finished_at:  # always, for a completed build
                own.setdefault(project, []).append((finished_at - started_at).total_seconds())
        everyone = [seconds for durations in own.values() for seconds in durations]
        self._all = Durations(everyone or [1.0])  # without history, only positions are used: assume equal durations
        self._own = {project: Durations(took) for project, took in own.items() if len(took) >= OWN_HISTORY}
        self._is_empty = not everyone

    def __bool__(self) -> bool:
        return not self._is_empty

    def of(self, project: UUID) -> Durations:
        return self._own.get(project, self._all)


class _Blocks:
    """What keeps a build from starting now, if anything."""

    def __init__(self, scene: Scene, predictions: Sequence[Prediction], workers: int, *, is_paused: bool) -> None:
        self._is_paused = is_paused
        self._of_owner = scene.running_of
        self._workers = workers
        starting = sum(prediction.is_now for prediction in predictions)
        self._leaves_idle = workers > len(scene.running) + starting

    def of(self, build: Waiting, prediction: Prediction) -> str | None:
        if self._is_paused:
            return "paused"
        if not self._workers:
            return "no_workers"
        if build.available_in > 0:
            return "backoff"
        if prediction.is_now:
            return None
        if settings.OWNER_MAX_RUNNING and self._of_owner[build.owner] >= settings.OWNER_MAX_RUNNING:
            return "owner_limit"
        # If a worker stays idle, the owner's limit is reached by builds that start now.
        return "owner_limit" if self._leaves_idle else "all_workers_busy"
