"""The results as a plain table and as JSON."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.benchmarks.memory import Process

MEMORY_AIM = 150.0  # MiB


@dataclass(frozen=True)
class Pairs:
    """Seconds of builds by Chef and the yardstick, made in turn; `aim` is the highest allowed ratio."""

    name: str
    aim: float
    chef: Sequence[float]
    yardstick: Sequence[float]
    stages: Sequence[Mapping[str, float]]

    @property
    def ratio(self) -> float:
        return statistics.median(self.chef) / statistics.median(self.yardstick)

    @property
    def ratio_of_fastest(self) -> float:
        """The least disturbed ratio, as other load on the machine only adds to a time."""
        return min(self.chef) / min(self.yardstick)

    @property
    def is_met(self) -> bool:
        return self.ratio <= self.aim


@dataclass(frozen=True)
class Throughput:
    """Builds per minute of Chef and the yardstick, in turn; `aim` is the lowest allowed ratio."""

    aim: float
    chef: Sequence[float]
    yardstick: Sequence[float]

    @property
    def ratio(self) -> float:
        return statistics.mean(self.chef) / statistics.mean(self.yardstick)

    @property
    def is_met(self) -> bool:
        return self.ratio >= self.aim


def pairs_line(pairs: Pairs) -> str:
    chef, yardstick = (_spread(seconds) for seconds in (pairs.chef, pairs.yardstick))
    verdict = _verdict(pairs.is_met)
    return f"{pairs.name:<14} {chef:>26} {yardstick:>26} {pairs.ratio:>7.2f}x   at most {pairs.aim:.2f}x   {verdict}"


def detail_lines(pairs: Pairs) -> list[str]:
    """The fastest of each side, and the median time of each stage of Chef's builds."""
    medians = {name: statistics.median(stage[name] for stage in pairs.stages) for name in pairs.stages[0]}
    return [
        f"  the fastest of each: {pairs.ratio_of_fastest:.2f}x",
        f"  Chef's time: {', '.join(f'{name} {1000 * seconds:.0f} ms' for name, seconds in medians.items())}",
    ]


def throughput_line(throughput: Throughput) -> str:
    chef, yardstick = (" ".join(f"{rate:.0f}" for rate in side) for side in (throughput.chef, throughput.yardstick))
    aim = f"at least {throughput.aim:.0%}    {_verdict(throughput.is_met)}"
    return f"{'builds/minute':<14} {chef:>26} {yardstick:>26} {throughput.ratio:>7.0%}    {aim}"


def memory_lines(processes: Iterable[Process]) -> list[str]:
    lines = [f"{'process':<20} {'RSS MiB':>9} {'PSS MiB':>9}   aim: at most {MEMORY_AIM:.0f} MiB of RSS"]
    lines += [f"{p.name:<20} {p.rss:>9.1f} {p.pss:>9.1f}   {_verdict(p.rss <= MEMORY_AIM)}" for p in processes]
    return lines


def heading() -> str:
    return f"{'':<14} {'Chef':>26} {'yardstick':>26} {'ratio':>8}   {'aim':<13}"


def as_json(
    pairs: Sequence[Pairs], throughput: Throughput | None, memory: Sequence[Process], machine: Mapping[str, Any]
) -> dict[str, Any]:
    """All numbers: seconds, builds per minute, MiB."""
    return {
        "machine": dict(machine),
        "pairs": [
            {**asdict(each), "ratio": each.ratio, "ratioOfFastest": each.ratio_of_fastest, "met": each.is_met}
            for each in pairs
        ],
        "throughput": throughput and {**asdict(throughput), "ratio": throughput.ratio, "met": throughput.is_met},
        "memory": [asdict(process) for process in memory],
    }


def _spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.3f} s ({min(seconds):.2f}-{max(seconds):.2f})"


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "missed"
