"""Speed of requests with very many builds: the same requests, with a small and a large database.

    python -m tests.benchmarks.scale [--builds N] [--chunks N] [--projects N] [--queued N] [--rounds N] [--json FILE]

Run by hand, with DATABASE_URL naming a superuser on a PostgreSQL server. Timings vary, so a missed aim is only
reported; the exit code is 1 if a number of queries depends on the size.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from tests.benchmarks.filling import Size, add_queued, fill
from tests.benchmarks.inside import WORK, Inside, Request
from tests.benchmarks.questions import IN_A_FULL_QUEUE, LISTING, QUEUING, READING, Known, Question
from tests.benchmarks.readers import percentile
from tests.installation import Installation

AIM = 1.5
SMALL = Size(builds=1_000, chunks=5_000, projects=10)
FEW_QUEUED = 20
WARM_UP = 3  # uncounted rounds
SETTINGS = {
    "CHEF_RATE_READ": "0",
    "CHEF_RATE_WRITE": "0",
    "CHEF_MAX_QUEUED": "1000000",
    "CHEF_OWNER_MAX_QUEUED": "1000000",
    "CHEF_LEASE_SECONDS": "3600",  # claimed builds have no worker, and the reaper must not find them
    "LOG_LEVEL": "WARNING",
}


@dataclass
class Side:
    """One database with a Chef."""

    size: Size
    installation: Installation
    client: httpx.Client
    inside: Inside
    known: Known
    queued: int = 0

    @property
    def url(self) -> str:
        return self.installation.environment["DATABASE_URL"]

    def queue(self, upto: int) -> None:
        add_queued(self.url, self.size, first=self.queued + 1, last=upto)
        self.queued = upto

    def ask(self, question: Question, turn: int) -> tuple[float, int]:
        """Seconds until the whole answer has arrived, and its bytes."""
        path = question.path(self.known, turn)
        began = time.perf_counter()
        answer = self.client.request(question.method, path, headers=question.headers)
        seconds = time.perf_counter() - began
        if answer.is_error:
            raise RuntimeError(f"{question.method} {path}: {answer.status_code} {answer.text[:500]}")
        return seconds, len(answer.content)

    def seconds_of(self, work: str) -> float:
        return self.inside.seconds_of(work)

    def queries_of(self, question: Question) -> int:
        headers = {"Authorization": f"Bearer {self.installation.token}", **question.headers}
        return self.inside.queries_of(Request(question.method, question.path(self.known, 0), headers))


@dataclass
class Line:
    """Seconds, bytes and query counts of one request on both sides."""

    name: str
    queries: tuple[int, int]
    small: list[float] = field(default_factory=list)
    large: list[float] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def add(self, small: float, small_size: int, large: float, large_size: int) -> None:
        self.small.append(small)
        self.large.append(large)
        self.sizes.append((small_size, large_size))

    @property
    def ratio(self) -> float:
        return statistics.median(self.large) / statistics.median(self.small)

    @property
    def is_met(self) -> bool:
        return self.ratio <= AIM

    @property
    def is_alike(self) -> bool:
        """Whether both answers have similar sizes; otherwise their times cannot be compared."""
        small, large = (statistics.median(sizes) for sizes in zip(*self.sizes, strict=True))
        return bool(0.8 * small <= large <= 1.25 * small)

    @property
    def has_same_queries(self) -> bool:
        return self.queries[0] == self.queries[1]

    @property
    def verdict(self) -> str:
        return ("met" if self.is_met else "MISSED") if self.is_alike else "UNLIKE"

    def text(self) -> str:
        times = [(statistics.median(side), percentile(side, 95)) for side in (self.small, self.large)]
        row = "".join(f"{1000 * median:>9.1f} {1000 * p95:>7.1f}" for median, p95 in times)
        queries = (
            f"{self.queries[0]}" if self.has_same_queries else f"{self.queries[0]} AND {self.queries[1]}: DIFFERENT"
        )
        return f"{self.name:<44}{row}{self.ratio:>8.2f}   {self.verdict:<8}{queries}"


HEADING = f"{'milliseconds':<44}{'small':>9} {'p95':>7}{'large':>9} {'p95':>7}{'ratio':>8}   {AIM:<8}queries"


def ask_all(sides: Sequence[Side], questions: Sequence[Question], rounds: int) -> list[Line]:
    """Ask both sides each question, `rounds` times in turn, so that other load affects all alike."""
    lines = []
    for question in questions:
        small, large = (side.queries_of(question) for side in sides)
        lines.append(Line(question.name, (small, large)))
    for turn in range(-WARM_UP, rounds):
        for question, line in zip(questions, lines, strict=True):
            small, large = _in_turn(partial(Side.ask, question=question, turn=turn), sides, turn)
            if turn >= 0:
                line.add(*small, *large)
    return lines


def work_all(sides: Sequence[Side], rounds: int) -> list[Line]:
    """The same for functions that no request calls."""
    lines = []
    for work in WORK:
        small, large = (side.inside.queries_of_work(work) for side in sides)
        lines.append(Line(work, (small, large)))
    for turn in range(rounds):
        for line in lines:
            small, large = _in_turn(partial(Side.seconds_of, work=line.name), sides, turn)
            line.add(small, 0, large, 0)
    return lines


def _in_turn(ask: Callable[[Side], Any], sides: Sequence[Side], turn: int) -> list[Any]:
    """Each side's answer, in the order of `sides`; which side is asked first alternates."""
    order = sides if turn % 2 else sides[::-1]
    answers = [ask(side) for side in order]
    return answers if turn % 2 else answers[::-1]


def measure(sides: Sequence[Side], *, queued: int, rounds: int) -> dict[str, list[Line]]:
    lines = {f"{FEW_QUEUED} builds wait": ask_all(sides, [*READING, *LISTING], rounds)}
    # These come last, as they change the projects that the others ask about.
    lines[f"{FEW_QUEUED} builds wait"] += ask_all(sides, [QUEUING], rounds)
    for side in sides:
        side.queue(queued)
    full = ask_all(sides, IN_A_FULL_QUEUE, rounds) + work_all(sides, rounds)
    return lines | {f"{queued:,} builds wait": full}


@contextmanager
def ready(large: Size) -> Iterator[list[Side]]:
    """Both sides, filled; everything is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="chef-scale-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield [_side(stack, folder / name, size) for name, size in (("small", SMALL), ("large", large))]


def _side(stack: ExitStack, folder: Path, size: Size) -> Side:
    folder.mkdir()
    installation = Installation(folder, **SETTINGS)
    stack.callback(installation.stop)
    installation.start_without_workers()
    began = time.monotonic()
    fill(installation.environment["DATABASE_URL"], size, tester="tester")
    side = open_side(stack, installation, size)
    progress(
        f"{size.builds:,} builds, {size.chunks:,} chunks, {size.projects:,} projects: {time.monotonic() - began:.0f} s"
    )
    return side


def open_side(stack: ExitStack, installation: Installation, size: Size) -> Side:
    known = Known(installation.environment["DATABASE_URL"], tester="tester")
    stack.callback(known.close)
    inside = Inside(installation.environment)
    stack.callback(inside.close)
    side = Side(size, installation, stack.enter_context(installation.client()), inside, known)
    side.queue(FEW_QUEUED)
    return side


def show(parts: dict[str, list[Line]], loads: Sequence[float]) -> None:
    print(f"{os.cpu_count()} CPUs, load before and after: {' '.join(f'{load:.1f}' for load in loads)}")
    for title, lines in parts.items():
        print("\n".join(["", title, HEADING, *(line.text() for line in lines)]))
    every = [line for lines in parts.values() for line in lines]
    missed = [line.name for line in every if line.verdict != "met"]
    print(
        f"\n{len(every) - len(missed)} of {len(every)} stay within {AIM} times. Missed: {', '.join(missed) or 'none'}."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--builds", type=int, default=1_000_000)
    parser.add_argument("--chunks", type=int, default=5_000_000)
    parser.add_argument("--projects", type=int, default=10_000)
    parser.add_argument("--queued", type=int, default=5_000, help="how many builds are queued in the second part")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not os.environ.get("DATABASE_URL", "").startswith("postgres"):
        parser.error("set DATABASE_URL to a superuser's address on a PostgreSQL server")
    with ready(Size(options.builds, options.chunks, options.projects)) as sides:
        loads = [os.getloadavg()[0]]
        parts = measure(sides, queued=options.queued, rounds=options.rounds)
        loads.append(os.getloadavg()[0])
    show(parts, loads)
    if options.json:
        options.json.write_text(
            json.dumps({t: [asdict(line) for line in lines] for t, lines in parts.items()}, indent=1)
        )
    different = [line.name for lines in parts.values() for line in lines if not line.has_same_queries]
    if different:
        print(f"THE NUMBER OF QUERIES DEPENDS ON THE SIZE: {', '.join(different)}", file=sys.stderr)
    return 1 if different else 0


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
