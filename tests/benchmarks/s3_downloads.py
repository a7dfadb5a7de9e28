"""A large artifact in an S3-compatible store: downloaded from Chef and from the store itself; speed and memory.

    python -m tests.benchmarks.s3_downloads [--size MB] [--runs N]

Run by hand, like tests.benchmarks.downloads. The store is moto's server, started and stopped here; it holds content
in memory, about twice the artifact.
"""

import argparse
import multiprocessing
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from tests import s3_server
from tests.benchmarks import chef
from tests.benchmarks.downloads import AIM_MEMORY, HEADING, MB, Bench, Result, built, unshared
from tests.benchmarks.fetching import Request, sha256
from tests.installation import Installation

SAMPLE_SECONDS = 0.05
# Chef first gets what it sends, on the same CPUs: its bytes are transferred twice, the store's own once.
AIM_S3_RATIO = 0.4


class Uploading:
    """Peak unshared MiB of the process that runs a build, while the block runs."""

    def __init__(self, installation: Installation) -> None:
        self._workers = psutil.Process(installation.processes["workers"].pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.memory = 0.0

    def __enter__(self) -> "Uploading":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            with suppress(psutil.Error):
                for worker in self._workers.children():
                    self.memory = max([self.memory, *(unshared(horse) for horse in worker.children())])


def measure(
    installation: Installation, store: s3_server.S3Server, bucket: str, *, size: int, runs: int
) -> tuple[float, list[Result]]:
    """Returns (peak MiB of the build's process, results of each way of downloading)."""
    with Uploading(installation) as uploading:
        accepted = built(installation, size)
    web = psutil.Process(installation.processes["web"].pid)
    project = f"/v1/projects/{accepted['projectId']}/artifacts"
    [artifact] = installation.get(project)["artifacts"]
    headers = {"Authorization": f"Bearer {installation.token}"}
    mine = Request(installation.port, f"{project}/{artifact['name']}", size, headers)
    direct = Request(store.port, _signed_path(store, bucket), size)
    with installation.client() as client:
        zipped = int(client.head(f"{project}.zip").headers["Content-Length"])
        client.get(mine.path, headers={"Range": "bytes=0-0"})  # the first request creates the store's client
    half = max(runs // 2, 1)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as reading:
        bench = Bench(web, unshared(web), reading, mine, direct)
        if reading.submit(sha256, mine).result() != artifact["sha256"]:
            raise AssertionError("the downloaded content is not the artifact")
        results = [
            bench.measure("whole", runs=runs),
            bench.measure("a range", runs=runs, part=(size // 5, size // 2)),
            bench.measure("4 at once", runs=half, parallel=4),
            bench.measure_zip(f"{project}.zip", zipped, runs=half),
        ]
    return uploading.memory, [replace(result, aim=AIM_S3_RATIO) for result in results]


def _signed_path(store: s3_server.S3Server, bucket: str) -> str:
    [key] = store.keys(bucket)
    where: dict[str, Any] = {"Bucket": bucket, "Key": key}
    return str(store.client.generate_presigned_url("get_object", Params=where)).removeprefix(store.url)


@contextmanager
def running() -> Iterator[tuple[Installation, s3_server.S3Server, str]]:
    folder = Path(tempfile.mkdtemp(prefix="chef-s3-"))
    with s3_server.serving() as store:
        bucket = store.make_bucket()
        installation = chef.install(folder, workers=1, NO_PROXY="127.0.0.1", **store.settings(bucket))
        try:
            yield installation.start(), store, bucket
        finally:
            installation.stop()
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=500, metavar="MB", help="size of the artifact; at most 1,000")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    load = os.getloadavg()
    with running() as (installation, store, bucket):
        uploading, results = measure(installation, store, bucket, size=options.size * MB, runs=options.runs)
    loads = [" ".join(f"{value:.1f}" for value in each) for each in (load, os.getloadavg())]
    print(f"{options.size} MB, {os.cpu_count()} CPUs, load before: {loads[0]}, after: {loads[1]}\n")
    print("\n".join([HEADING.replace("nginx", "store"), *(result.line() for result in results)]))
    print(f"aims: at least {AIM_S3_RATIO:.0%} of the store, at most {AIM_MEMORY:g} MiB above idle, nothing written")
    print(f"the build's process had {uploading:.0f} MiB of its own at most, while it stored the artifact")


if __name__ == "__main__":
    main()
