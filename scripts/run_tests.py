"""`./scripts/test.sh`: what a database has a part in on SQLite and, at the same time, on PostgreSQL; the rest once.

Arguments go to pytest. All that it starts is its own, on free ports and in temporary folders, and is gone when it ends.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import BinaryIO, NoReturn

from scripts import docker_engine, postgres, redis_server
from scripts.packages import VENV_PYTHON, set_up
from scripts.place import ROOT, Place, read_env_file
from scripts.processes import Fault, Service, stop_together, tie_to_parent
from scripts.steps import Step, run_together

# What says how this machine reaches things is kept; all else that Chef reads is the tests' to set.
_KEPT = {"DOCKER_HOST", "SSL_CERT_FILE", "RUNTIME_REGISTRY"}
# The runs, both at the same time, and what each is called: see scripts.lanes.
_LANES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
_NO_TESTS = 5  # pytest's exit code
_PYTEST = ("-p", "scripts.no_skips", "-p", "scripts.lanes", "-p", "no:cacheprovider", "-ra", "--strict-markers")


def main(arguments: Sequence[str]) -> int:
    began = time.monotonic()
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    try:
        place = Place.from_environment()
        set_up("tests", place)
        with _bench(place) as (bench, postgres_url):
            codes = _run_all(bench, postgres_url, arguments)
    except Fault as fault:
        print(f"\n{fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    told = ", ".join(f"{name} {'passed' if code == 0 else 'FAILED'}" for name, code in codes.items())
    print(f"{told}, after {time.monotonic() - began:.0f} s in all", flush=True)
    return max(codes.values())


@contextlib.contextmanager
def _bench(place: Place) -> Iterator[tuple[Place, str]]:
    """A place of the tests' own with Redis, Docker and the images in it, and PostgreSQL's URL; undone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="chef-test-"))
    folder.chmod(0o711)  # PostgreSQL runs as another user, and has to get to its own folder
    started: list[Service] = []
    try:
        bench = Place(folder, _environment(place, folder))
        if not docker_engine.answers(bench.docker_host):
            started.append(docker_engine.start(place))  # its images are worth keeping for the next run
        redis, redis_url = redis_server.start(bench, keep=False)
        started.append(redis)
        cluster, postgres_url = postgres.start(folder / "postgres", log=bench.log("postgres"))
        started.append(cluster)
        bench = bench.with_environment(REDIS_URL=redis_url)
        _prepare(bench)
        yield bench, postgres_url
    finally:
        stop_together(started)
        shutil.rmtree(folder, ignore_errors=True)


def _environment(place: Place, folder: Path) -> dict[str, str]:
    chefs = set(read_env_file(ROOT / ".env.example", commented=True)) - _KEPT
    plain = {name: value for name, value in place.environment.items() if name not in chefs}
    return plain | {
        "CHEF_DATA_DIR": str(folder),
        # Two runs beside each other on one engine leave each other's containers alone.
        "CHEF_INSTALLATION": f"test-{os.getpid()}",
        "SECRET_KEY": secrets.token_urlsafe(60),
        "DATABASE_URL": f"sqlite:///{folder / 'chef.sqlite3'}",
    }


def _prepare(bench: Place) -> None:
    python = str(VENV_PYTHON)
    static = [python, "manage.py", "collectstatic", "--noinput", "--verbosity=0"]
    images = [python, "manage.py", "prepare_runtimes"]
    run_together(
        Step("static files", static, bench.log("static"), bench.environment),
        Step("the runtimes' images", images, bench.log("images"), bench.environment, lambda line: "built" in line),
    )


def _run_all(bench: Place, postgres_url: str, arguments: Sequence[str]) -> dict[str, int]:
    """The runs of pytest, SQLite's in this terminal, the others' told after it. Their exit codes by what they are."""
    logs = {lane: bench.log(f"pytest-{lane}") for lane in _LANES if lane != "sqlite"}
    with contextlib.ExitStack() as all_of_them:
        print("\n=== SQLite, and PostgreSQL at the same time", flush=True)
        runs = {}
        for number, lane in enumerate(_LANES):
            output = all_of_them.enter_context(logs[lane].open("wb")) if lane in logs else None
            url = postgres_url if lane == "postgresql" else f"sqlite:///{bench.data / lane / 'chef.sqlite3'}"
            place = bench.with_environment(DATABASE_URL=url, REDIS_URL=f"{bench.redis_url.removesuffix('0')}{number}")
            runs[lane] = all_of_them.enter_context(_pytest(place, lane, arguments, output))
        codes = {_LANES[lane]: run.wait() for lane, run in runs.items()}
    for lane, log in logs.items():
        print(f"\n=== {_LANES[lane]}\n{log.read_text(errors='replace')}", flush=True)
    if 0 in codes.values():  # where only some tests were asked for, a run may have none of them
        codes = {name: 0 if code == _NO_TESTS else code for name, code in codes.items()}
    return codes


@contextlib.contextmanager
def _pytest(
    bench: Place, lane: str, arguments: Sequence[str], output: BinaryIO | None
) -> Iterator[subprocess.Popen[bytes]]:
    """A run with a data folder and an installation's name of its own."""
    folder = bench.data / lane
    folder.mkdir()
    (folder / "static").symlink_to(bench.data / "static")
    environment = {
        **bench.environment,
        "TEST_LANE": lane,
        "CHEF_DATA_DIR": str(folder),
        "CHEF_INSTALLATION": f"{bench.environment['CHEF_INSTALLATION']}-{lane}",
    }
    argv = [str(VENV_PYTHON), "-m", "pytest", *_PYTEST, *arguments]
    with subprocess.Popen(
        argv, env=environment, cwd=ROOT, stdout=output, stderr=output, preexec_fn=tie_to_parent(signal.SIGTERM)
    ) as pytest:
        try:
            yield pytest
        except BaseException:
            pytest.send_signal(signal.SIGINT)  # it lets its fixtures clean up
            raise


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
