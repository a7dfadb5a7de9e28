"""Where a queued build stands and when it may start, from what is known of the queue, the workers and past builds.

All of it is read and reckoned at once, at most once a second in each process, and shared by all who ask meanwhile.
Builds that have yet to be queued are not foreseen: they can come before those that wait. builds.queue.simulation plays
the queue; this module knows the database.
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
# A build that came after the last reading asks for another one at once, unless readings then took a fifth of the time.
REST_PER_READING = 5
# How many of the last completed builds count, and how many of them of one project are enough to speak for it.
HISTORY = 500
OWN_HISTORY = 5
# Retry-After, in seconds: when nobody can tell, and at most.
USUAL_WAIT, LONGEST_WAIT = 60, 300


def queue_document(build: Build) -> dict[str, Any] | None:
    """The API's `queue` of one build; None when it is not queued."""
    return queue_documents([build]).get(build.pk)


def queue_documents(builds: Iterable[Build]) -> dict[UUID, dict[str, Any]]:
    """The API's `queue` of those builds that are queued, by their ids: no queries for each.

    `position` is 1 + how many are expected to be claimed before it. `etaSeconds` until it starts is None while no
    worker is alive or the queue is paused, and as long as no build has ever completed here: there is nothing to reckon
    with. When external builders take theirs, nobody here knows: those are placed by priority and age alone. Those of
    projects in quarantine come after all others.
    """
    queued = [build for build in builds if build.status == Status.QUEUED]
    if not queued:
        return {}
    outlook = _outlook(build.pk for build in queued)
    return {build.pk: outlook.of(build) for build in queued}


def seconds_to_room(owner: int | None = None) -> int:
    """Seconds until a queued build of the owner, or of anyone, may start and leave its place: 1 to 300."""
    outlook = _outlook()
    wait = outlook.next_start if owner is None else outlook.next_start_of.get(owner)
    return min(max(ceil(USUAL_WAIT if wait is None else wait), 1), LONGEST_WAIT)


# --- What all who ask share --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outlook:
    """What can be said of every queued build, as of `taken_at`; reading and reckoning took `cost` seconds."""

    taken_at: datetime
    documents: Mapping[UUID, dict[str, Any]]
    external: Mapping[UUID, dict[str, Any]]  # the same of those that external builders take
    queued: Mapping[tuple[int, int], int]  # how many, by (priority, owner)
    next_start_of: Mapping[int, float]  # the owner's next, in seconds
    next_start: float | None
    is_paused: bool
    cost: float

    def of(self, build: Build) -> dict[str, Any]:
        if build.is_external:
            return self.external.get(build.pk) or _external_document(len(self.external) + 1, self._pause)
        return self.documents.get(build.pk) or self._of_unseen(build)

    def knows(self, pk: UUID) -> bool:
        return pk in self.documents or pk in self.external

    @property
    def _pause(self) -> str | None:
        return "paused" if self.is_paused else None

    def _of_unseen(self, build: Build) -> dict[str, Any]:
        """For a build that was not among the queued: it has since been claimed, or has come in since."""
        if max(build.created_at, build.available_at) < self.taken_at:
            return {"position": 1, "etaSeconds": {"p50": 0, "p90": 0}, "blockedBy": None}
        # As if nobody had been served yet: the next reading, within a second, knows better.
        own = self.queued.get((build.priority, build.owner_id), 0)
        position = 1 + sum(
            count if priority > build.priority else min(count, own)
            for (priority, _), count in self.queued.items()
            if priority >= build.priority
        )
        # What was shown of the one whose place it takes, or of the last.
        places = (document for document in self.documents.values() if document["position"] <= position)
        nearest = max(places, key=lambda document: int(document["position"]), default={})
        block = self._pause or nearest.get("blockedBy")
        return {"position": position, "etaSeconds": nearest.get("etaSeconds"), "blockedBy": block}


_lock = threading.Lock()
_last: tuple[float, Outlook] | None = None  # and when, by time.monotonic


def _outlook(asked: Iterable[UUID] = ()) -> Outlook:
    """The last outlook while it is fresh, else a new one. Whoever asks meanwhile waits for it and shares it."""
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
    """Read anew when next asked: for tests, whose world changes faster."""
    global _last
    with _lock:
        _last = None


# --- Reading and reckoning ---------------------------------------------------------------------------------------


def look_ahead() -> Outlook:
    """Four queries, whatever the length of the queue, and one prediction."""
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
        workers=max(workers, 1),  # the order is worth telling even while nobody works
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
    # The oldest come first among equals.
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
    served_at: datetime | None  # when the owner last was
    is_quarantined: bool
    is_paused: bool  # as all are, or none


def _queued() -> tuple[list[_Queued], bool]:
    """All that is queued, for our workers and for others, the oldest first; and whether the queue is paused."""
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
    """What runs, by the start of the attempt that runs now."""
    attempts = Attempt.objects.filter(build__status=Status.RUNNING, build__is_external=False, number=F("build__fence"))
    return [
        Running(
            owner,
            history.of(project).remaining((now - started_at).total_seconds(), at_most=float(settings.WORKER_TIMEOUT)),
        )
        for owner, project, started_at in attempts.values_list("build__owner", "build__project", "started_at")
    ]


class _History:
    """How long the last builds took that completed here at the first attempt. False when there are none."""

    def __init__(self) -> None:
        rows = (
            Build.objects.filter(status=Status.COMPLETED, is_external=False, fence=1)
            .order_by("-finished_at")
            .values_list("project", "started_at", "finished_at")[:HISTORY]
        )
        own: dict[UUID, list[float]] = {}
        for project, started_at, finished_at in rows:
            if started_at and finished_at:  # as all that have completed have
                own.setdefault(project, []).append((finished_at - started_at).total_seconds())
        everyone = [seconds for durations in own.values() for seconds in durations]
        self._all = Durations(everyone or [1.0])  # without any, only positions are told: all are taken for alike
        self._own = {project: Durations(took) for project, took in own.items() if len(took) >= OWN_HISTORY}
        self._is_empty = not everyone

    def __bool__(self) -> bool:
        return not self._is_empty

    def of(self, project: UUID) -> Durations:
        return self._own.get(project, self._all)


class _Blocks:
    """What keeps a build from starting now, if anything does."""

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
        # A worker that is left idle is kept from it by the owner's builds that start now.
        return "owner_limit" if self._leaves_idle else "all_workers_busy"
