"""A published site compared with nginx serving the same files: requests per second, and memory for a large file.

    python -m tests.benchmarks.sites [--seconds N] [--rounds N] [--json FILE]

Run by hand: timings vary by machine, so this is not a test, and the exit code only says whether measuring worked.
Needs nginx and wrk (Debian's packages nginx-light and wrk). The site is a built React starter; each of its files is
requested in turn over persistent connections, uncompressed and with gzip. Chef and nginx, with one worker each, are
measured in turn; then nginx in front of Chef, which caches small files for a second and sends large ones itself.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks import chef, nginx
from tests.benchmarks.downloads import PeakUsage, unshared
from tests.installation import Installation

PROMPT = "Build a simple todo app with React"
CONNECTIONS = 32
LARGE = 1_000_000_000
AIM_RATIO, AIM_MEMORY = 0.4, 20.0
_RATE = re.compile(r"Requests/sec:\s+([0-9.]+)")
# Each file in turn; wrk itself counts answers other than 200.
_SCRIPT = """
local paths = {{ {paths} }}
local turn = 0
request = function()
  turn = turn % #paths + 1
  return wrk.format("GET", paths[turn], {{ ["Host"] = "{host}"{encoding} }})
end
"""


class UnmeasuredError(Exception):
    """A measurement was not possible."""


@dataclass
class Result:
    """Requests per second of each round, by kind of request."""

    chef: dict[str, list[float]] = field(default_factory=dict)
    nginx: dict[str, list[float]] = field(default_factory=dict)
    behind: dict[str, list[float]] = field(default_factory=dict)
    large_mb_per_second: dict[str, list[float]] = field(default_factory=dict)
    memory: float = 0.0

    def table(self) -> list[str]:
        lines = [f"{'requests/s':<22} {'Chef':>9} {'nginx':>9} {'ratio':>7}   aim"]
        for name, rates in self.chef.items():
            mine, theirs = statistics.median(rates), statistics.median(self.nginx[name])
            verdict = "met" if mine / theirs >= AIM_RATIO else "missed"
            lines.append(f"{name:<22} {mine:>9.0f} {theirs:>9.0f} {mine / theirs:>7.0%}   {verdict}")
        for name, rates in self.behind.items():
            mine, theirs = statistics.median(rates), statistics.median(self.nginx[name])
            verdict = "met" if mine / theirs >= AIM_RATIO else "missed"
            lines.append(f"{name + ', in front':<22} {mine:>9.0f} {theirs:>9.0f} {mine / theirs:>7.0%}   {verdict}")
        for name, rates in self.large_mb_per_second.items():
            lines.append(f"1 GB, {name:<16} {statistics.median(rates):>9.0f} MB/s")
        verdict = "met" if self.memory <= AIM_MEMORY else "missed"
        lines.append(f"1 GB: the web process {self.memory:.1f} MiB above idle at most   {verdict}")
        return lines


@dataclass(frozen=True)
class Site:
    """What is measured: a server's port, the Host header to send, and the paths."""

    port: int
    host: str
    paths: Sequence[str]

    def rate(self, folder: Path, *, seconds: int, encoding: str) -> float:
        """Requests per second, all answered with 200. Raises UnmeasuredError."""
        program = shutil.which("wrk")
        if program is None:
            raise UnmeasuredError("wrk is missing: install Debian's package wrk.")
        script = folder / "requests.lua"
        header = f', ["Accept-Encoding"] = "{encoding}"' if encoding else ""
        paths = ", ".join(json.dumps(path) for path in self.paths)
        script.write_text(_SCRIPT.format(paths=paths, host=self.host, encoding=header))
        argv = [program, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "-s", str(script), f"http://127.0.0.1:{self.port}/"]
        report = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        if "Non-2xx" in report or not (rate := _RATE.search(report)):
            raise UnmeasuredError(report)
        return float(rate[1])


def publish(installation: Installation, accepted: dict[str, Any]) -> str:
    """Publish a build; returns its live host name. Raises UnmeasuredError."""
    document = installation.wait(accepted, seconds=300)
    if document["status"] != "completed":
        raise UnmeasuredError(f"the build is {document['status']}: {document['verdict']}")
    with installation.client() as client:
        answer = client.post(f"/v1/projects/{accepted['projectId']}/publish", json={"jobId": accepted["jobId"]})
    return str(answer.raise_for_status().json()["url"]).removeprefix("http://")


def unpack(installation: Installation, accepted: dict[str, Any], folder: Path) -> list[str]:
    """Write a build's site as files for nginx, with `.gz` files as compressed by Chef; returns its paths."""
    listing = installation.get(f"/v1/projects/{accepted['projectId']}/artifacts?jobId={accepted['jobId']}")
    paths = []
    for artifact in listing["artifacts"]:
        path = artifact["name"].partition("/")[2]
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        where = "e.artifact_id = a.id AND e.encoding = 'gzip'"
        key = f"(SELECT storage_key FROM builds_encodedartifact e WHERE {where})"
        rows = installation.rows(
            f"SELECT a.storage_key, {key} FROM builds_artifact a "
            f"JOIN builds_build b ON b.id = a.build_id WHERE a.name = '{artifact['name']}' ORDER BY b.created_at DESC"
        )
        stored = installation.folder / "artifacts"
        shutil.copy(stored / rows[0][0], folder / path)
        if rows[0][1]:
            shutil.copy(stored / rows[0][1], folder / f"{path}.gz")
        paths.append(f"/{path}")
    return paths


def measure(installation: Installation, *, seconds: int, rounds: int) -> Result:
    result = Result()
    with installation.client() as client:
        accepted = client.post("/v1/generate", json={"prompt": PROMPT}, timeout=120).raise_for_status().json()
    host = publish(installation, accepted)
    folder = installation.folder / "site"
    paths = unpack(installation, accepted, folder)
    by_nginx = nginx.serving_site(folder, installation.folder / "nginx")
    in_front = nginx.in_front(installation.port, installation.folder / "artifacts", installation.folder / "front")
    with by_nginx as theirs, in_front as front:
        sites = {
            "chef": Site(installation.port, host, paths),
            "nginx": Site(theirs, "127.0.0.1", paths),
        }
        for _ in range(rounds):
            for name, site in sites.items():
                for what, encoding in (("as they are", ""), ("in gzip", "gzip")):
                    rate = site.rate(installation.folder, seconds=seconds, encoding=encoding)
                    getattr(result, name).setdefault(what, []).append(rate)
        large(installation, result, "Chef", installation.port)
        installation.end("web")
        installation.environment["SITES_ACCEL_PREFIX"] = "/_stored"
        installation.start_web()
        for _ in range(rounds):
            for what, encoding in (("as they are", ""), ("in gzip", "gzip")):
                rate = Site(front, host, paths).rate(installation.folder, seconds=seconds, encoding=encoding)
                result.behind.setdefault(what, []).append(rate)
        large(installation, result, "nginx by X-Accel", front)
    return result


def large(installation: Installation, result: Result, name: str, port: int) -> None:
    """One large file, read by curl, in turn from each server: speed, and memory of the web process."""
    command = f"mkdir dist && echo x > dist/index.html && head -c {LARGE} /dev/zero > dist/large.bin"
    strategy = {"runtime": "static", "buildCommand": command, "outputs": ["dist"]}
    accepted = installation.submit({"x.txt": "x"}, strategy=strategy, name=f"large {port}")
    host = publish(installation, accepted)
    [(key,)] = installation.rows(
        f"SELECT storage_key FROM builds_artifact WHERE size = {LARGE} ORDER BY id DESC LIMIT 1"
    )
    web = psutil.Process(installation.processes["web"].pid)
    with nginx.serving(installation.folder / "artifacts" / key, installation.folder / f"nginx-{port}") as theirs:
        for number in range(4):
            with PeakUsage(web, unshared(web)) as usage:
                rate = read(f"http://127.0.0.1:{port}/large.bin", host)
            itself = read(f"http://127.0.0.1:{theirs}/file", "127.0.0.1")
            result.memory = max(result.memory, usage.memory)
            if number:  # the first read fills the page cache for the others
                result.large_mb_per_second.setdefault(name, []).append(rate)
                result.large_mb_per_second.setdefault("nginx itself", []).append(itself)


def read(url: str, host: str) -> float:
    """MB/s of one download. Raises UnmeasuredError."""
    argv = ["curl", "-s", "-o", "/dev/null", "-w", "%{size_download} %{speed_download}", "-H", f"Host: {host}", url]
    size, speed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
    if int(size) != LARGE:
        raise UnmeasuredError(f"only {size} bytes came")
    return float(speed) / 1e6


@contextlib.contextmanager
def running() -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="chef-sites-"))
    folder.chmod(0o755)
    installation = chef.install(folder, workers=1)
    installation.environment |= {"CHEF_MAX_ARTIFACT_BYTES": "2g", "AI_PROVIDER": "starter"}
    try:
        yield installation.start()
    finally:
        installation.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"load before: {' '.join(f'{load:.1f}' for load in os.getloadavg())}")
    with running() as installation:
        result = measure(installation, seconds=options.seconds, rounds=options.rounds)
    print("\n".join(result.table()))
    if options.json:
        options.json.write_text(json.dumps(asdict(result), indent=1))


if __name__ == "__main__":
    main()
