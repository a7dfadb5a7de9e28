"""Large projects in each format, and archives that unpack to gigabytes: time, and memory of the web process.

    python -m tests.benchmarks.uploads [--only projects|bombs] [--runs N] [--json FILE]

Run by hand: timings vary by machine, so this is not a test, and the exit code only says whether measuring worked.
"""

import argparse
import base64
import contextlib
import gzip
import json
import os
import random
import shutil
import signal
import sqlite3
import statistics
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg

from tests.benchmarks import chef
from tests.installation import Installation
from tests.projects.files.archive_files import (
    Entry,
    gzip_bomb,
    member,
    overlapping_zip_bomb,
    pax,
    tar_of,
    zip_bomb,
    zip_by_hand,
    zip_of,
)

MIB = 1024**2
PARTS = ("projects", "bombs")
FILES, PROJECT_BYTES = 1_000, 20 * MIB
RUNS = 7
BOMB_MIB = 10 * 1024
SAMPLE_SECONDS = 0.002
SETTLING_SECONDS = 1.0
AIM_SECONDS, AIM_BOMB_SECONDS, AIM_MEMORY = 2.0, 1.0, 100.0


@dataclass(frozen=True)
class File:
    path: str
    content: bytes
    executable: bool = False


@dataclass(frozen=True)
class Upload:
    """A request body, and the expected answer."""

    name: str
    content_type: str
    body: bytes
    status: int = 201
    code: str = ""


@dataclass(frozen=True)
class Result:
    """Seconds of each run, and MiB of the web process above its size before the first run."""

    name: str
    sent_mib: float
    seconds: Sequence[float]
    memory: float
    kept: float  # after the last run
    yardstick: Sequence[float] = ()

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def line(self, aim: float) -> str:
        ratio = f"{self.median / statistics.median(self.yardstick):>6.1f} x" if self.yardstick else ""
        verdict = "met" if self.median <= aim and self.memory <= AIM_MEMORY else "missed"
        spread = f"{min(self.seconds):.2f} to {max(self.seconds):.2f}"
        numbers = f"{self.sent_mib:>8.1f} {self.median:>8.2f} {spread:>14} {self.memory:>8.1f} {self.kept:>8.1f}"
        return f"{self.name:<34} {numbers} {ratio:>8}   {verdict}"


HEADING = f"{'':<34} {'sent MiB':>8} {'seconds':>8} {'':>14} {'MiB most':>8} {'and kept':>8} {'ratio':>8}   aims"


# --- Bodies ----------------------------------------------------------------------------------------------------------


def project() -> list[File]:
    """Files up to the total limit, of words and symbols that compress about as well as code."""
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randrange(2, 12))) for _ in range(400)]
    signs = [" ", " ", " ", "(", ") ", ' = "', '";\n', "\n    ", " => {\n", "}\n\n", "ä"]
    size = PROJECT_BYTES // FILES
    files = []
    for number in range(FILES):
        text = "".join(chance.choice(words) + chance.choice(signs) for _ in range(size // 7)).encode()
        files.append(File(f"src/part{number % 40}/file{number}.js", text[:size].decode("utf-8", "ignore").encode()))
    return files


def uploads() -> Iterator[Upload]:
    files = project()
    texts = {file.path: file.content.decode() for file in files}
    yield Upload("JSON", "application/json", _json(texts))
    # Python stores a text with one emoji in four bytes per character.
    smiling = {path: "\N{GRINNING FACE}" + text[:-4] for path, text in texts.items()}
    yield Upload("JSON, an emoji in each file", "application/json", _json(smiling))
    coded = [
        {"path": file.path, "content": base64.b64encode(file.content).decode(), "encoding": "base64"} for file in files
    ]
    yield Upload("JSON, base64", "application/json", _json(coded))
    yield _form("tar", tar_of(files))
    yield _form("tar.gz", gzip.compress(tar_of(files)))
    yield _form("zip", zip_of(files))


def bombs() -> Iterator[Upload]:
    large, refused = BOMB_MIB * MIB, {"status": 400, "code": "file_too_large"}
    lies = {"status": 400, "code": "invalid_archive"}
    yield _form("zip, one file of 10 GB", zip_bomb(BOMB_MIB), **refused)
    yield _form("zip, ten files of 1 GB", zip_bomb(BOMB_MIB // 10, entries=10), **refused)
    yield _form("zip, 100 overlapping files", overlapping_zip_bomb(100, declared=100 * MIB, entries=100), **refused)
    yield _form("zip that declares 1,000 bytes", zip_bomb(BOMB_MIB, declared=1_000), **lies)
    yield _form("zip, 20 overlapping, 1 MB each", overlapping_zip_bomb(100, declared=MIB, entries=20), **lies)
    yield _form("tar.gz, one file of 10 GB", gzip_bomb(BOMB_MIB, member_size=large), **refused)
    yield _form("tar.gz that declares 1,000 bytes", gzip_bomb(BOMB_MIB, member_size=1_000), **lies)
    # Small when unpacked, but slow to read.
    empty = b"\0\0\0\xff\xff" * (40 * MIB // 5) + b"\3\0"
    yield _form("zip, 40 MB of empty blocks", zip_by_hand(Entry(b"x", method=8, packed=empty)), **lies)
    yield _form("tar, one header of 300,000 records", pax(**{f"{n:x}": b"" for n in range(300_000)}), **lies)
    yield _form("tar, 9,000 folders", member("folder", kind=tarfile.DIRTYPE) * 9_000, **lies)


def _json(files: Any) -> bytes:
    return json.dumps({"files": files}, ensure_ascii=False).encode()


def _form(name: str, archive: bytes, **answer: Any) -> Upload:
    request = httpx.Request("POST", "http://chef", files={"archive": ("archive", archive)})
    return Upload(name, request.headers["Content-Type"], request.read(), **answer)


# --- Measuring -------------------------------------------------------------------------------------------------------


class Peak:
    """Peak unshared memory (MiB) of a process while the block runs."""

    def __init__(self, pid: int) -> None:
        self._statm = Path(f"/proc/{pid}/statm")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.most = self.now()

    def now(self) -> float:
        """Resident memory without file-backed and shared pages, which is faster than adding up private pages."""
        _, resident, shared, *_ = map(int, self._statm.read_text().split())
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE") / MIB

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self.most = max(self.most, self.now())


def measure(installation: Installation, upload: Upload, *, runs: int, yardstick: "Yardstick | None" = None) -> Result:
    """Send it several times to a new web process that has only answered one small request."""
    installation.end("web")
    installation.start_web()
    installation.submit({"index.html": "warm"})
    time.sleep(SETTLING_SECONDS)
    seconds, theirs = [], []
    with Peak(installation.processes["web"].pid) as peak:
        idle = peak.now()
        for _ in range(runs):
            seconds.append(send(installation, upload))
            if yardstick:
                theirs.append(yardstick.insert())
        time.sleep(SETTLING_SECONDS)
        kept = peak.now()
    return Result(upload.name, len(upload.body) / MIB, seconds, peak.most - idle, kept - idle, theirs)


def send(installation: Installation, upload: Upload) -> float:
    """Seconds from the request to its answer. Raises AssertionError for an unexpected answer."""
    with installation.client() as client:
        client.get("/health/live")  # the connection is open
        began = time.perf_counter()
        answer = client.post("/v1/projects", content=upload.body, headers={"Content-Type": upload.content_type})
        took = time.perf_counter() - began
    assert answer.status_code == upload.status, f"{upload.name}: {answer.status_code} {answer.text[:300]}"
    assert upload.code in answer.text, answer.text[:300]
    return took


class Yardstick:
    """Inserts the same files into the same table in one transaction, and does nothing else."""

    _ROW = "INSERT INTO projects_sourcefile (revision_id, path, content, size, executable) VALUES ({})"

    def __init__(self, installation: Installation, files: Sequence[File]) -> None:
        self._url, self._files, self._runs = installation.environment["DATABASE_URL"], files, 0
        installation.submit({"index.html": "the yardstick's"})
        ((self._revision,),) = installation.rows("SELECT max(id) FROM projects_revision")

    def insert(self) -> float:
        """Insert the rows; returns seconds."""
        self._runs += 1
        rows = [
            (self._revision, f"{self._runs}/{file.path}", file.content, len(file.content), file.executable)
            for file in self._files
        ]
        return self._into_postgres(rows) if self._url.startswith("postgres") else self._into_sqlite(rows)

    def _into_postgres(self, rows: list[Any]) -> float:
        with psycopg.connect(self._url) as connection, connection.cursor() as cursor:
            began = time.perf_counter()
            with connection.transaction():
                cursor.executemany(self._ROW.format("%s, %s, %s, %s, %s").encode(), rows)
            return time.perf_counter() - began

    def _into_sqlite(self, rows: list[Any]) -> float:
        with contextlib.closing(sqlite3.connect(self._url.removeprefix("sqlite:///"), timeout=20)) as file:
            file.execute("PRAGMA journal_mode=WAL")
            file.execute("PRAGMA synchronous=NORMAL")
            began = time.perf_counter()
            with file:
                file.executemany(self._ROW.format("?, ?, ?, ?, ?"), rows)
            return time.perf_counter() - began


# --- The whole benchmark ---------------------------------------------------------------------------------------------


@contextmanager
def running() -> Iterator[Installation]:
    """An installation that accepts uploads but builds nothing, so that builds do not use the CPUs."""
    folder = Path(tempfile.mkdtemp(prefix="chef-uploads-"))
    installation = chef.install(folder, workers=1)
    try:
        installation.start()
        for name in ("workers", "reaper"):
            installation.end(name)
        yield installation
    finally:
        installation.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a plain SIGTERM would leave everything running
    print("load before:", *(f"{load:.1f}" for load in os.getloadavg()))
    print(HEADING)
    results = []
    with running() as installation:
        if options.only != "bombs":
            yardstick = Yardstick(installation, project())
            for upload in uploads():
                results.append(measure(installation, upload, runs=options.runs, yardstick=yardstick))
                print(results[-1].line(AIM_SECONDS), flush=True)
        if options.only != "projects":
            for upload in bombs():
                results.append(measure(installation, upload, runs=options.runs))
                print(results[-1].line(AIM_BOMB_SECONDS), flush=True)
    print("load after:", *(f"{load:.1f}" for load in os.getloadavg()))
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1))


if __name__ == "__main__":
    main()
