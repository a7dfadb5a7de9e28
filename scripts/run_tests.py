"""`./scripts/test.sh`: what a database has a part in on SQLite and, at the same time, on PostgreSQL; the rest once.

All that it starts is its own, on free ports and in temporary folders, and is gone when it ends. `--fast` starts
nothing: it runs what needs no service, on SQLite. All other arguments go to pytest.
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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from scripts import docker_engine, postgres, redis_server
from scripts.lanes import LANES
from scripts.packages import LOCKS, VENV_PYTHON, install_python, set_up
from scripts.place import ROOT, Place, read_env_file
from scripts.processes import Service, SetupError, stop_together, tie_to_parent
from scripts.steps import Step, run_together

# What says how this machine reaches things is kept; all else that Chef reads is the tests' to set.
_KEPT = {"DOCKER_HOST", "SSL_CERT_FILE", "RUNTIME_REGISTRY"}
# The runs at the same time, each of lanes one after the other: see scripts.lanes.
_RUNS = (("sqlite",), ("postgresql",), ("sqlite-waiting", "postgresql-waiting"))
_NO_TESTS = 5  # pytest's exit code
_PYTEST = (str(VENV_PYTHON), "-m", "pytest", "-p", "scripts.no_skips", "-ra")
# What needs a service, or takes long without one, is left out; the rest is spread over the cores.
_FAST = ("-m", "not (docker or redis or postgres or browser or network or slow)", "-n", "logical", "--dist", "loadfile")


def main(arguments: Sequence[str]) -> int:
    began = time.monotonic()
    # SIGINT too: what a shell puts in the background ignores it, and so would pytest, which cleans up when it gets one.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        if "--fast" in arguments:
            return _run_fast([argument for argument in arguments if argument != "--fast"])
        place = Place.from_environment()
        set_up("tests", place)
        with _bench(place) as (bench, postgres_url):
            codes = _run_all(bench, postgres_url, arguments)
    except SetupError as fault:
        print(f"\n{fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    told = ", ".join(f"{name} {'passed' if code == 0 else 'FAILED'}" for name, code in codes.items())
    print(f"{told}, after {time.monotonic() - began:.0f} s in all", flush=True)
    return max(codes.values())


def _run_fast(arguments: Sequence[str]) -> int:
    """pytest's exit code. Installs nothing but the virtual environment, and starts nothing."""
    install_python(LOCKS["tests"])
    return subprocess.run([*_PYTEST, *_FAST, *arguments], cwd=ROOT, env=_plain(os.environ)).returncode


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
    return _plain(place.environment) | {
        "CHEF_DATA_DIR": str(folder),
        # Two runs beside each other on one engine leave each other's containers alone.
        "CHEF_INSTALLATION": f"test-{os.getpid()}",
        "SECRET_KEY": secrets.token_urlsafe(60),
        "DATABASE_URL": f"sqlite:///{folder / 'chef.sqlite3'}",
    }


def _plain(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what Chef on this machine is set up with."""
    chefs = set(read_env_file(ROOT / ".env.example", commented=True)) - _KEPT
    return {name: value for name, value in environment.items() if name not in chefs}


def _prepare(bench: Place) -> None:
    python = str(VENV_PYTHON)
    static = [python, "manage.py", "collectstatic", "--noinput", "--verbosity=0"]
    images = [python, "manage.py", "prepare_runtimes"]
    run_together(
        Step("static files", static, bench.log("static"), bench.environment),
        Step("the runtimes' images", images, bench.log("images"), bench.environment, lambda line: "built" in line),
    )


def _run_all(bench: Place, postgres_url: str, arguments: Sequence[str]) -> dict[str, int]:
    """The runs of pytest, the first in this terminal, the others told after it. Their exit codes by lane."""
    others = ", ".join(name for run in _RUNS[1:] for name in run)
    print(f"\n=== {_RUNS[0][0]}, and at the same time {others}", flush=True)
    urls = {"sqlite": "", "postgresql": postgres_url}
    runs = [[_Lane(bench, lane, urls[LANES[lane]]) for lane in run] for run in _RUNS]
    with contextlib.ExitStack() as all_of_them:
        for lane in (lane for run in runs for lane in run):
            all_of_them.callback(lane.stop)
        while not all(lane.is_done for run in runs for lane in run):
            for run in runs:
                following = next((lane for lane in run if not lane.is_done), None)
                if following and not following.is_running:
                    following.start(arguments, is_shown=run is runs[0])
            time.sleep(0.2)
    lanes = [lane for run in runs for lane in run]
    for lane in lanes[1:]:
        print(f"\n=== {lane.name}\n{lane.log.read_text(errors='replace')}", flush=True)
    codes = {lane.name: lane.code for lane in lanes}
    if 0 in codes.values():  # where only some tests were asked for, a run may have none of them
        codes = {name: 0 if code == _NO_TESTS else code for name, code in codes.items()}
    return codes


class _Lane:
    """One run of pytest, with a data folder, an installation's name and a part of Redis of its own."""

    def __init__(self, bench: Place, name: str, database_url: str) -> None:
        self.name, self.log = name, bench.log(f"pytest-{name}")
        self._process: subprocess.Popen[bytes] | None = None
        folder = bench.data / name
        folder.mkdir()
        (folder / "static").symlink_to(bench.data / "static")
        self._environment = {
            **bench.environment,
            "TEST_LANE": name,
            "CHEF_DATA_DIR": str(folder),
            "CHEF_INSTALLATION": f"{bench.environment['CHEF_INSTALLATION']}-{name}",
            "DATABASE_URL": database_url or f"sqlite:///{folder / 'chef.sqlite3'}",
            # Not side by side: with `-n`, the workers of a lane have those after it.
            "REDIS_URL": f"{bench.redis_url.removesuffix('0')}{4 * list(LANES).index(name)}",
        }

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def is_done(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    @property
    def code(self) -> int:
        assert self._process is not None
        return int(self._process.returncode)

    def start(self, arguments: Sequence[str], *, is_shown: bool) -> None:
        argv = [*_PYTEST, "-p", "scripts.lanes", *arguments]
        with contextlib.nullcontext() if is_shown else self.log.open("wb") as output:
            self._process = subprocess.Popen(
                argv,
                env=self._environment,
                cwd=ROOT,
                stdout=output,
                stderr=output,
                preexec_fn=tie_to_parent(signal.SIGTERM),
            )

    def stop(self) -> None:
        """End one that still runs; it lets its fixtures clean up."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
