"""Many live readers of one running build on one web process: delay, memory, and effect on other requests.

    python -m tests.benchmarks.live [--readers N] [--seconds S] [--every MS] [--json FILE]

Run by hand: timings vary by machine, so this is not a test, and the exit code only says whether measuring worked.
The readers run on the same machine and take their share of its time.
"""

import argparse
import json
import multiprocessing
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.benchmarks import chef
from tests.benchmarks.readers import CUT_SECONDS, Journal, Stream, percentile, watch
from tests.installation import Installation, until

MIB = 1024**2
IDLE_SECONDS = 8.0
REQUEST_PAUSE = 0.02
SETTLING_SECONDS = 5.0  # until all readers are connected
AIM_DELAY, AIM_MEMORY, AIM_REQUESTS = 0.250, 100.0, 2.0


@dataclass(frozen=True)
class Result:
    """Seconds, MiB and counts of one run. Delays are of lines written while all readers were connected."""

    readers: int
    lines: int
    wrong_readers: int  # that missed, repeated or reordered a line
    resumed: int
    delay_p50: float
    delay_p95: float
    delay_most: float
    memory_idle: float
    memory_peak: float
    request_idle_p95: float
    request_p95: float
    request_building_p95: float
    threads: int

    @property
    def memory(self) -> float:
        return self.memory_peak - self.memory_idle

    @property
    def requests(self) -> float:
        return self.request_p95 / self.request_idle_p95

    def lines_of_table(self) -> list[str]:
        wrong = f"{self.wrong_readers} of {self.readers}"
        return [
            f"{self.readers} readers, {self.lines} lines each, {self.resumed} cuts; {self.threads} threads at most",
            f"{'readers that missed, repeated or reordered a line':<52} {wrong:>12}   aim: 0",
            _row("delay from container to reader, p50", 1000 * self.delay_p50, "ms"),
            _row("delay from container to reader, p95", 1000 * self.delay_p95, "ms", 1000 * AIM_DELAY),
            _row("delay from container to reader, largest", 1000 * self.delay_most, "ms"),
            _row("web process above idle", self.memory, "MiB", AIM_MEMORY),
            _row("status request p95, idle", 1000 * self.request_idle_p95, "ms"),
            _row("status request p95, the build without readers", 1000 * self.request_building_p95, "ms"),
            _row("status request p95, the build with readers", 1000 * self.request_p95, "ms"),
            _row("status request, with readers over idle", self.requests, "x", AIM_REQUESTS),
        ]


def _row(name: str, value: float, unit: str, aim: float | None = None) -> str:
    verdict = "" if aim is None else f"   aim: at most {aim:g}: {'met' if value <= aim else 'missed'}"
    return f"{name:<52} {value:>8.1f} {unit:<3}{verdict}"


class Requests:
    """Sends ordinary requests one after the other from a thread and records their seconds."""

    def __init__(self, client: httpx.Client, path: str) -> None:
        self.seconds: list[float] = []
        self._client, self._path = client, path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Requests":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(REQUEST_PAUSE):
            began = time.perf_counter()
            self._client.get(self._path).raise_for_status()
            self.seconds.append(time.perf_counter() - began)


class Peak:
    """Peak unshared memory (MiB) and number of threads of a process."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self.memory, self.threads = 0.0, 0

    def look(self) -> None:
        self.memory = max(self.memory, self._process.memory_full_info().uss / MIB)
        self.threads = max(self.threads, self._process.num_threads())


def measure(installation: Installation, *, readers: int, seconds: float, every: int) -> Result:
    web = psutil.Process(installation.processes["web"].pid)
    with installation.client() as client:
        idle_build = _printing(installation, seconds=1, every=every)
        installation.wait(idle_build)
        idle = _requests(client, idle_build, IDLE_SECONDS)
        before = Peak(web)
        before.look()
        alone = _printing(installation, seconds=IDLE_SECONDS, every=every)
        until(lambda: installation.status(alone)["phase"] == "build", seconds=30, what="it prints")
        building = _requests(client, alone, IDLE_SECONDS - 1)
        installation.wait(alone)
        watched = _printing(installation, seconds=seconds + SETTLING_SECONDS, every=every)
        stream = Stream(
            installation.url, f"/v1/builds/{watched['jobId']}/logs", installation.token, readers, readers // 10
        )
        journals, during, peak = _watch(client, watched, stream, web, seconds)
    return _result(journals, idle, building, during, before, peak)


def _watch(
    client: httpx.Client, watched: dict[str, Any], stream: Stream, web: psutil.Process, seconds: float
) -> tuple[list[Journal], list[float], Peak]:
    peak = Peak(web)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        reading = pool.submit(watch, stream)
        time.sleep(SETTLING_SECONDS)
        with Requests(client, _status_path(watched)) as requests:
            end = time.monotonic() + seconds - 1
            while time.monotonic() < end:
                peak.look()
                time.sleep(0.5)
        return reading.result(), requests.seconds, peak


def _requests(client: httpx.Client, accepted: dict[str, Any], seconds: float) -> list[float]:
    with Requests(client, _status_path(accepted)) as requests:
        time.sleep(seconds)
    return requests.seconds[10:]


def _status_path(accepted: dict[str, Any]) -> str:
    return f"/v1/projects/{accepted['projectId']}/status?jobId={accepted['jobId']}"


def _printing(installation: Installation, *, seconds: float, every: int) -> dict[str, Any]:
    """A build that prints a number and its clock in seconds every `every` milliseconds."""
    count = round(1000 * seconds / every)
    program = "let i=0;const t=setInterval(()=>{console.log(`line ${++i} ${(Date.now()/1000).toFixed(3)}`);"
    program += f"if(i>={count})clearInterval(t)}},{every})"
    return installation.submit({"x.txt": "x"}, strategy={"runtime": "node", "buildCommand": f"node -e '{program}'"})


def _result(
    journals: Sequence[Journal],
    idle: Sequence[float],
    building: Sequence[float],
    during: Sequence[float],
    before: Peak,
    peak: Peak,
) -> Result:
    lines = max(max(journal.numbers) for journal in journals)
    whole = list(range(1, lines + 1))
    wrong = [journal for journal in journals if list(journal.numbers) != whole or not journal.has_ended]
    # Readers that connect late or again get earlier lines, which are not delays.
    steady = [journal for journal in journals if not journal.resumed]
    settled = round(lines / 4)
    delays = [delay for journal in steady for delay in list(journal.delays)[settled:]]
    return Result(
        readers=len(journals),
        lines=lines,
        wrong_readers=len(wrong),
        resumed=sum(journal.resumed for journal in journals),
        delay_p50=percentile(delays, 50),
        delay_p95=percentile(delays, 95),
        delay_most=max(delays),
        memory_idle=before.memory,
        memory_peak=peak.memory,
        request_idle_p95=percentile(idle, 95),
        request_p95=percentile(during, 95),
        request_building_p95=percentile(building, 95),
        threads=peak.threads,
    )


@contextmanager
def running() -> Iterator[Installation]:
    # A short path, as the Unix sockets of egress proxies are in it.
    folder = Path(tempfile.mkdtemp(prefix="chef-live-"))
    installation = chef.install(folder, workers=1)
    try:
        yield installation.start()
    finally:
        installation.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5 * CUT_SECONDS[1], help="how long the readers are measured")
    parser.add_argument("--every", type=int, default=30, help="milliseconds from line to line")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with running() as installation:
        result = measure(installation, readers=options.readers, seconds=options.seconds, every=options.every)
    print("\n".join(result.lines_of_table()))
    if options.json:
        options.json.write_text(json.dumps(asdict(result), indent=1))


if __name__ == "__main__":
    main()
