"""Simulates the queue in plain Python: in which order builds are claimed, and when. Knows no database and no clock.

The order is that of builds.queue.claims. One run with mean durations gives all positions. For start times, the first
claims are simulated many times with random durations, and later ones are extrapolated: sums of many builds are
predictable, and a run over the whole queue costs as much as all the short ones.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import heapify, heappop, heappush
from itertools import islice
from math import ceil, inf, sqrt
from typing import NamedTuple

PLAYS = 32
CLAIMS_A_PLAY = 160
# The extrapolation starts from the last so many builds that were simulated often enough.
ANCHORS = 20


class Durations:
    """A distribution of durations in seconds: `samples`, at least one, are equally likely."""

    def __init__(self, samples: Iterable[float]) -> None:
        self.samples = sorted(samples)
        self.mean = sum(self.samples) / len(self.samples)

    def remaining(self, elapsed: float, *, at_most: float = inf) -> "Durations":
        """The remaining durations after `elapsed` seconds."""
        left = [sample - elapsed for sample in self.samples if sample > elapsed]
        if len(left) < 3:
            # Longer than almost all before it: assume that what has taken long tends to continue.
            left += [elapsed * share for share in (0.1, 0.3, 1.0)]
        return Durations(min(seconds, max(at_most - elapsed, 0.0)) for seconds in left)


class Waiting(NamedTuple):
    """A queued build, eligible in `available_in` seconds."""

    owner: int
    priority: int
    available_in: float
    durations: Durations


class Running(NamedTuple):
    owner: int
    remaining: Durations


class Prediction(NamedTuple):
    """Position in the queue, from 1, and seconds until the start: median and 90th percentile."""

    position: int
    p50: float
    p90: float

    @property
    def is_now(self) -> bool:
        return self.p50 == 0


@dataclass(frozen=True)
class Scene:
    """The state of the queue at one moment. `waiting` is ordered by age, oldest first.

    `served` ranks owners from 1, the one served longest ago first; owners never served are not in it. There is at least
    one worker. An `owner_limit` of 0 means no limit.
    """

    waiting: Sequence[Waiting]
    running: Sequence[Running]
    served: Mapping[int, int]
    workers: int
    owner_limit: int = 0

    @cached_property
    def lanes(self) -> Mapping[tuple[int, int], list[int]]:
        """The eligible builds of each (priority, owner), as indices into `waiting`, oldest last."""
        lanes: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index in reversed(range(len(self.waiting))):
            build = self.waiting[index]
            if build.available_in <= 0:
                lanes[build.priority, build.owner].append(index)
        return dict(lanes)

    @cached_property
    def returning(self) -> list[tuple[float, int]]:
        """The builds in back-off, as (seconds, index), the first to return last."""
        later = [(build.available_in, index) for index, build in enumerate(self.waiting) if build.available_in > 0]
        return sorted(later, reverse=True)

    @cached_property
    def running_of(self) -> Counter[int]:
        return Counter(build.owner for build in self.running)

    @cached_property
    def offers(self) -> Mapping[int, list[tuple[int, int, int, int]]]:
        """For each priority, highest first, a heap of each owner's next build: (running, rank, index, owner)."""
        offers: dict[int, list[tuple[int, int, int, int]]] = {
            priority: [] for priority in sorted({build.priority for build in self.waiting}, reverse=True)
        }
        for (priority, owner), lane in self.lanes.items():
            running = self.running_of[owner]
            if not self.owner_limit or running < self.owner_limit:
                offers[priority].append((running, self.served.get(owner, 0), lane[-1], owner))
        for heap in offers.values():
            heapify(heap)
        return offers


class Play:
    """One simulated future of the queue."""

    def __init__(self, scene: Scene, draw: Callable[[Durations], float]) -> None:
        self._scene = scene
        self._draw = draw
        self._now = 0.0
        self._lanes: dict[tuple[int, int], list[int]] = {}  # copies of the lanes this play has changed
        self._returning = scene.returning[:]
        self._served = dict(scene.served)
        self._last_rank = len(scene.served)
        self._running = scene.running_of.copy()
        self._busy = [(draw(build.remaining), build.owner) for build in scene.running]
        heapify(self._busy)
        self._offers = {priority: offers[:] for priority, offers in scene.offers.items()}

    def claims(self) -> Iterator[tuple[int, float]]:
        """(index, seconds) of each claim, in order, until all have been claimed."""
        while True:
            while len(self._busy) < self._scene.workers and (index := self._claim()) is not None:
                yield index, self._now
            if not self._advance():
                return

    def _claim(self) -> int | None:
        for priority, offers in self._offers.items():
            while offers:
                running, rank, index, owner = heappop(offers)
                lane = self._lane(priority, owner)
                still_holds = lane and lane[-1] == index and running == self._running[owner]
                # Outdated entries stay in the heap: the owner has a newer entry there too.
                if still_holds and rank == self._served.get(owner, 0):
                    self._start(lane.pop(), owner)
                    return index
        return None

    def _start(self, index: int, owner: int) -> None:
        self._last_rank += 1
        self._served[owner] = self._last_rank
        self._running[owner] += 1
        heappush(self._busy, (self._now + self._draw(self._scene.waiting[index].durations), owner))
        self._offer(owner)

    def _offer(self, owner: int) -> None:
        running = self._running[owner]
        if self._scene.owner_limit and running >= self._scene.owner_limit:
            return  # offered again when one of its builds ends
        for priority, offers in self._offers.items():
            if lane := self._lane(priority, owner):
                heappush(offers, (running, self._served.get(owner, 0), lane[-1], owner))

    def _lane(self, priority: int, owner: int) -> list[int]:
        lane = self._lanes.get((priority, owner))
        if lane is None:
            lane = self._lanes[priority, owner] = self._scene.lanes.get((priority, owner), [])[:]
        return lane

    def _advance(self) -> bool:
        """Advance to the next end of a build or back-off. False when there is none."""
        ends = self._busy[0][0] if self._busy else inf
        returns = self._returning[-1][0] if self._returning else inf
        if ends == returns == inf:
            return False
        self._now = min(ends, returns)
        if returns < ends:
            self._offer(self._return(self._returning.pop()[1]))
        # With mean durations many builds end at once: handle all of them before serving any owner.
        while self._busy and self._busy[0][0] <= self._now:
            owner = heappop(self._busy)[1]
            self._running[owner] -= 1
            self._offer(owner)
        return True

    def _return(self, index: int) -> int:
        build = self._scene.waiting[index]
        lane = self._lane(build.priority, build.owner)
        lane.append(index)
        lane.sort(reverse=True)
        return build.owner


def predict(scene: Scene) -> list[Prediction]:
    """A prediction for each of `scene.waiting`, in the same order."""
    expected = dict(Play(scene, lambda durations: durations.mean).claims())
    positions = {index: place for place, index in enumerate(expected, 1)}
    near = _play_often(scene)
    beyond = _Extrapolation([(expected[index], *near[index]) for index in expected if index in near][-ANCHORS:])
    return [
        Prediction(positions[index], *(near.get(index) or beyond.at(expected[index])))
        for index in range(len(scene.waiting))
    ]


def _play_often(scene: Scene) -> dict[int, tuple[float, float]]:
    """(p50, p90) of the builds that are claimed early enough to be in nearly every play."""
    # A fixed seed: estimates must not flicker between two requests.
    chance = random.Random(1).random  # noqa: S311  (not a secret)
    starts: dict[int, list[float]] = defaultdict(list)
    for _ in range(PLAYS):
        play = Play(scene, lambda durations: durations.samples[int(chance() * len(durations.samples))])
        for index, seconds in islice(play.claims(), CLAIMS_A_PLAY):
            starts[index].append(seconds)
    median, ninth = PLAYS // 2, ceil(PLAYS * 0.9) - 1
    # In plays that did not reach a build, it starts later than in the others: at most one in ten may miss it.
    often = {index: sorted(seconds) for index, seconds in starts.items() if len(seconds) > ninth}
    return {index: (seconds[median], seconds[ninth]) for index, seconds in often.items()}


class _Extrapolation:
    """Extends (expected, p50, p90) of the last simulated builds: means grow linearly, spreads with the square root."""

    def __init__(self, anchors: Sequence[tuple[float, float, float]]) -> None:
        count = max(len(anchors), 1)
        self._expected = sum(expected for expected, _, _ in anchors) / count
        self._p50 = sum(p50 for _, p50, _ in anchors) / count
        self._spread = sum(p90 - p50 for _, p50, p90 in anchors) / count

    def at(self, expected: float) -> tuple[float, float]:
        p50 = self._p50 + max(expected - self._expected, 0.0)
        growth = sqrt(max(expected / self._expected, 1.0)) if self._expected else 1.0
        return p50, p50 + self._spread * growth
