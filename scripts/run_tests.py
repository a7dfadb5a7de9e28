"""`./scripts/test.sh`: every test on SQLite and again on PostgreSQL, with real Redis and Docker.

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
from typing import NoReturn

from scripts import docker_engine, postgres, redis_server
from scripts.packages import VENV_PYTHON, set_up
from scripts.place import ROOT, Place, read_env_file
from scripts.processes import Fault, Service, stop_together, tie_to_parent
from scripts.steps import Step, run_together, tell_seconds

# What says how this machine reaches things is kept; all else that Chef reads is the tests' to set.
_KEPT = {"DOCKER_HOST", "SSL_CERT_FILE", "RUNTIME_REGISTRY"}
_PYTEST = ("-p", "scripts.no_skips", "-p", "no:cacheprovider", "-ra", "--strict-markers")


def main(arguments: Sequence[str]) -> int:
    began = time.monotonic()
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    try:
        place = Place.from_environment()
        set_up("tests", place)
        with _bench(place) as (bench, postgres_url):
            on_sqlite = _run("SQLite", bench, f"sqlite:///{bench.data / 'chef.sqlite3'}", arguments)
            on_postgres = _run("PostgreSQL", bench, postgres_url, arguments)
    except Fault as fault:
        print(f"\n{fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    told = ", ".join(f"{name} {'passed' if code == 0 else 'FAILED'}" for name, code in (on_sqlite, on_postgres))
    print(f"{told}, after {time.monotonic() - began:.0f} s in all", flush=True)
    return on_sqlite[1] or on_postgres[1]


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


def _run(name: str, bench: Place, database_url: str, arguments: Sequence[str]) -> tuple[str, int]:
    """One run of pytest, in this terminal. The name, and pytest's exit code."""
    print(f"\n=== {name}", flush=True)
    started = time.monotonic()
    argv = [str(VENV_PYTHON), "-m", "pytest", *_PYTEST, *arguments]
    environment = {**bench.environment, "DATABASE_URL": database_url}
    with subprocess.Popen(argv, env=environment, cwd=ROOT, preexec_fn=tie_to_parent(signal.SIGTERM)) as pytest:
        try:
            code = pytest.wait()
        except BaseException:
            pytest.send_signal(signal.SIGINT)  # it lets its fixtures clean up
            raise
    tell_seconds(time.monotonic() - started, f"pytest on {name}")
    return name, code


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
