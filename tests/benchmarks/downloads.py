"""A large artifact sent by the web process, compared with nginx sending the same file: speed and memory.

    python -m tests.benchmarks.downloads [--size MB] [--runs N] [--json FILE]

Run by hand: timings vary by machine, so this is not a test, and the exit code only says whether measuring worked.
Needs nginx (Debian's package nginx-light), which is started and stopped here.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks import chef, nginx
from tests.benchmarks.fetching import Request, fetch, sha256
from tests.installation import Installation

MB, MIB = 1000**2, 1024**2
WARM_UPS = 1
SAMPLE_SECONDS = 0.1
PARALLEL = 10
AIM_RATIO, AIM_MEMORY = 0.5, 20.0


@dataclass(frozen=True)
class Result:
    """MB/s of each run, peak MiB of the web process above idle, and MiB written to disk meanwhile."""

    name: str
    chef: Sequence[float]
    nginx: Sequence[float]  # in turn with Chef's; empty if there is nothing to compare with
    memory: float
    written: float
    aim: float = AIM_RATIO

    @property
    def ratio(self) -> float:
        return statistics.median(self.chef) / statistics.median(self.nginx)

    def line(self) -> str:
        mine, theirs = _spread(self.chef), _spread(self.nginx) if self.nginx else ""
        ratio = f"{self.ratio:.0%}" if self.nginx else ""
        is_met = self.memory <= AIM_MEMORY and self.written < 1 and (not self.nginx or self.ratio >= self.aim)
        verdict = "met" if is_met else "missed"
        return (
            f"{self.name:<18} {mine:>20} {theirs:>20} {ratio:>6} {self.memory:>9.1f} {self.written:>9.1f}   {verdict}"
        )


HEADING = f"{'MB/s':<18} {'Chef':>20} {'nginx':>20} {'ratio':>6} {'MiB more':>9} {'written':>9}   aims"


def _spread(rates: Sequence[float]) -> str:
    return f"{statistics.median(rates):.0f} ({min(rates):.0f}-{max(rates):.0f})"


class PeakUsage:
    """Peak memory of the web process above `idle`, and bytes it writes, while the block runs; both in MiB."""

    def __init__(self, web: psutil.Process, idle: float) -> None:
        self._web, self._idle = web, idle
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.memory = self.written = 0.0

    def __enter__(self) -> "PeakUsage":
        self._written = self._web.io_counters().write_bytes
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self.written = (self._web.io_counters().write_bytes - self._written) / MIB

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self.memory = max(self.memory, unshared(self._web) - self._idle)


def unshared(process: psutil.Process) -> float:
    return float(process.memory_full_info().uss) / MIB


@dataclass
class Bench:
    """Both servers, and the process that reads from them."""

    web: psutil.Process
    idle: float
    reading: ProcessPoolExecutor
    chef: Request
    nginx: Request

    def measure(self, name: str, *, runs: int, part: tuple[int, int] | None = None, parallel: int = 1) -> Result:
        """Chef, nginx, Chef, nginx, ...; `part` is (start, length) in bytes."""
        mine, theirs = self._asking(self.chef, part, parallel), self._asking(self.nginx, part, parallel)
        rates: tuple[list[float], list[float]] = ([], [])
        with PeakUsage(self.web, self.idle) as usage:
            for number in range(WARM_UPS + runs):
                for request, found in zip((mine, theirs), rates, strict=True):
                    rate = self.rate(request)
                    if number >= WARM_UPS:
                        found.append(rate)
        return Result(name, *rates, usage.memory, usage.written)

    def measure_zip(self, path: str, size: int, *, runs: int) -> Result:
        request = replace(self.chef, path=path, size=size)
        with PeakUsage(self.web, self.idle) as usage:
            rates = [self.rate(request) for _ in range(runs)]
        return Result("artifacts.zip", rates, [], usage.memory, usage.written)

    def rate(self, request: Request) -> float:
        """MB/s of all parallel readers together."""
        return request.size * request.parallel / MB / self.reading.submit(fetch, request).result()

    @staticmethod
    def _asking(request: Request, part: tuple[int, int] | None, parallel: int) -> Request:
        if part:
            start, length = part
            headers = {**request.headers, "Range": f"bytes={start}-{start + length - 1}"}
            request = replace(request, headers=headers, size=length)
        return replace(request, parallel=parallel)


def measure(installation: Installation, *, size: int, runs: int) -> list[Result]:
    accepted = built(installation, size)
    web = psutil.Process(installation.processes["web"].pid)
    listing = installation.get(f"/v1/projects/{accepted['projectId']}/artifacts")
    [artifact] = listing["artifacts"]
    headers = {"Authorization": f"Bearer {installation.token}"}
    path = f"/v1/projects/{accepted['projectId']}/artifacts"
    mine = Request(installation.port, f"{path}/{artifact['name']}", size, headers)
    [stored] = (installation.folder / "artifacts" / accepted["jobId"]).glob("*/*")
    with installation.client() as client:
        zipped = int(client.head(f"{path}.zip").headers["Content-Length"])
    spawn = multiprocessing.get_context("spawn")
    with nginx.serving(stored, installation.folder / "nginx") as port, ProcessPoolExecutor(1, spawn) as reading:
        bench = Bench(web, unshared(web), reading, mine, Request(port, "/file", size))
        if reading.submit(sha256, mine).result() != artifact["sha256"]:
            raise AssertionError("the downloaded content is not the artifact")
        return [
            bench.measure("whole", runs=runs),
            bench.measure("a range", runs=runs, part=(size // 5, size // 2)),
            bench.measure(f"{PARALLEL} at once", runs=max(runs // 2, 1), parallel=PARALLEL),
            bench.measure_zip(f"{path}.zip", zipped, runs=max(runs // 2, 1)),
        ]


def built(installation: Installation, size: int) -> dict[str, Any]:
    """A completed build with one incompressible artifact of `size` bytes."""
    command = f"mkdir dist && head -c {size} /dev/urandom > dist/large.bin"
    strategy = {"runtime": "static", "buildCommand": command, "outputs": ["dist"]}
    accepted = installation.submit({"x.txt": "x"}, strategy=strategy)
    document = installation.wait(accepted, seconds=300)
    if document["status"] != "completed":
        raise AssertionError(f"the build is {document['status']}: {document['verdict']}")
    return accepted


@contextmanager
def running() -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="chef-down-"))
    installation = chef.install(folder, workers=1)
    try:
        yield installation.start()
    finally:
        installation.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=500, metavar="MB", help="size of the artifact; at most 1,000")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    load = os.getloadavg()
    with running() as installation:
        results = measure(installation, size=options.size * MB, runs=options.runs)
    loads = [" ".join(f"{value:.1f}" for value in each) for each in (load, os.getloadavg())]
    print(f"{options.size} MB, {os.cpu_count()} CPUs, load before: {loads[0]}, after: {loads[1]}\n")
    print("\n".join([HEADING, *(result.line() for result in results)]))
    print(f"aims: at least {AIM_RATIO:.0%} of nginx, at most {AIM_MEMORY:g} MiB above idle, nothing written to disk")
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1))


if __name__ == "__main__":
    main()
