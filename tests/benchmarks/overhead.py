"""Chef's overhead over the bare Docker calls, as a ratio to a yardstick that runs in turn with it.

    python -m tests.benchmarks.overhead [--only trivial|react|throughput|memory] [--runs N] [--runtime R] [--json FILE]

Run by hand: timings vary by machine, so this is not a test, and the exit code only says whether measuring worked.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from django.conf import settings

from tests.benchmarks import chef, memory, report, workloads, yardstick
from tests.benchmarks.recipes import Recipe, recipe_of
from tests.benchmarks.workloads import Workload
from tests.installation import Installation

PARTS = ("trivial", "react", "throughput", "memory")
TRIVIAL_RUNS, REACT_RUNS = 15, 5
WORKERS = 5
ROUNDS = 3  # of throughput: Chef, the yardstick, Chef, the yardstick, ...
BUILDS_A_ROUND = 45
SLOW_SECONDS = 6
AIMS = {"trivial": 1.6, "react": 1.10, "throughput": 0.75}


@dataclass
class Bench:
    """Chef and the yardstick, ready to build."""

    installation: Installation
    yardstick: yardstick.Yardstick
    client: httpx.Client

    def warm_up(self, workload: Workload) -> Recipe:
        """One uncounted build on each side; returns the recipe that Chef used."""
        recipe = recipe_of(workload, chef.build(self.client, workload).document)
        self.yardstick.build(recipe)
        return recipe

    def pairs(self, workload: Workload, *, runs: int) -> report.Pairs:
        """Builds of the workload, in turn by Chef and the yardstick."""
        recipe = self.warm_up(workload)
        mine, theirs = [], []
        for number in range(runs):
            mine.append(chef.build(self.client, workload))
            theirs.append(self.yardstick.build(recipe))
            progress(f"{workload.name} {number + 1}/{runs}: {mine[-1].seconds:.3f} s and {theirs[-1]:.3f} s")
        seconds, stages = [each.seconds for each in mine], [each.stages() for each in mine]
        return report.Pairs(workload.name, AIMS[workload.name], seconds, theirs, stages)

    def throughput(self, workload: Workload) -> report.Throughput:
        """Many builds at once, in turn: all of Chef's, then all of the yardstick's."""
        recipe = self.warm_up(workload)
        mine, theirs = [], []
        for number in range(ROUNDS):
            seconds = chef.many(self.installation, workload, builds=BUILDS_A_ROUND)
            mine.append(60 * BUILDS_A_ROUND / seconds)
            seconds = yardstick.many(self.yardstick, recipe, builds=BUILDS_A_ROUND, processes=WORKERS)
            theirs.append(60 * BUILDS_A_ROUND / seconds)
            progress(f"throughput {number + 1}/{ROUNDS}: {mine[-1]:.0f} and {theirs[-1]:.0f} builds/minute")
        return report.Throughput(AIMS["throughput"], mine, theirs)

    def memory(self) -> list[memory.Process]:
        """The processes during a build."""
        chef.submit(self.client, workloads.slow(SLOW_SECONDS))
        time.sleep(SLOW_SECONDS / 2)
        return memory.look(self.installation)


@contextmanager
def ready() -> Iterator[Bench]:
    """Chef and the yardstick; everything that they made is removed afterwards, even after errors."""
    folder = Path(tempfile.mkdtemp(prefix="chef-bench-", dir="/tmp"))  # a short path, as Unix sockets need one
    installation = chef.install(folder / "chef", workers=WORKERS)
    # This process reads the installation's settings, so that the yardstick has the same limits.
    os.environ.update(installation.environment, DJANGO_SETTINGS_MODULE="chef.settings")
    hand = yardstick.Yardstick(base_url=settings.DOCKER_HOST, mark=installation.name, scratch=folder / "yardstick")
    try:
        (folder / "chef").mkdir()
        (folder / "yardstick").mkdir()
        installation.manage("prepare_runtimes")
        installation.start()
        with installation.client() as client:
            yield Bench(installation, hand, client)
    finally:
        installation.stop()
        hand.remove_leftovers()
        hand.close()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    options = parse_arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a plain SIGTERM would leave everything running
    machine: dict[str, Any] = {"cpus": os.cpu_count(), "loadBefore": os.getloadavg()}
    trivial = workloads.trivial(options.runtime)
    pairs, throughput, processes = [], None, []
    with ready() as bench:
        if "trivial" in options.only:
            pairs.append(bench.pairs(trivial, runs=options.runs or TRIVIAL_RUNS))
        if "react" in options.only:
            pairs.append(bench.pairs(workloads.react_app(), runs=options.runs or REACT_RUNS))
        if "throughput" in options.only:
            throughput = bench.throughput(trivial)
        if "memory" in options.only:
            processes = bench.memory()
    machine["loadAfter"] = os.getloadavg()
    show(pairs, throughput, processes, machine)
    if options.json:
        options.json.write_text(json.dumps(report.as_json(pairs, throughput, processes, machine), indent=1))


def show(
    pairs: list[report.Pairs],
    throughput: report.Throughput | None,
    processes: list[memory.Process],
    machine: dict[str, Any],
) -> None:
    before, after = (" ".join(f"{load:.1f}" for load in machine[name]) for name in ("loadBefore", "loadAfter"))
    lines = [f"{machine['cpus']} CPUs, load before: {before}, after: {after}", ""]
    if pairs or throughput:
        lines.append(report.heading())
    for each in pairs:
        lines += [report.pairs_line(each), *report.detail_lines(each)]
    if throughput:
        lines.append(report.throughput_line(throughput))
    if processes:
        lines += ["", *report.memory_lines(processes)]
    print("\n".join(lines))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.overhead", description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="measure only this; can be repeated")
    parser.add_argument(
        "--runs", type=int, help=f"pairs of each kind of build; default: {TRIVIAL_RUNS} trivial, {REACT_RUNS} React"
    )
    parser.add_argument(
        "--runtime",
        choices=("static", "node", "python"),
        default="static",
        help="of the trivial build. static: its image has no interpreter, so both sides run the same commands. "
        "node, python: Chef's installation also starts the forwarder to the registries, and the yardstick's does not",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers to this file")
    options = parser.parse_args()
    options.only = options.only or list(PARTS)
    return options


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
