"""`./scripts/test.sh`: runs tests that use a database on SQLite and PostgreSQL in parallel, the others once.

It starts its own services, on free ports and in temporary folders, and stops them at the end. `--fast` starts nothing:
it runs the tests that need no service, on SQLite. All other arguments go to pytest.
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

# Variables about how this machine reaches the network are kept; the tests set all other settings of Chef.
_KEPT = {"DOCKER_HOST", "SSL_CERT_FILE", "RUNTIME_REGISTRY"}
# Parallel runs, each of consecutive lanes: see scripts.lanes.
_RUNS = (("sqlite",), ("postgresql",), ("sqlite-waiting", "postgresql-waiting"))
_NO_TESTS = 5  # pytest's exit code
_PYTEST = (str(VENV_PYTHON), "-m", "pytest", "-p", "scripts.no_skips", "-ra")
# Without tests that need a service or take long; spread over the cores.
_FAST = ("-m", "not (docker or redis or postgres or browser or network or slow)", "-n", "logical", "--dist", "loadfile")


def main(arguments: Sequence[str]) -> int:
    began = time.monotonic()
    # Also SIGINT: a shell's background processes ignore it, and so would pytest, which cleans up on SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _raise_interrupt)
    try:
        if "--fast" in arguments:
            return _run_fast([argument for argument in arguments if argument != "--fast"])
        place = Place.from_environment()
        set_up("tests", place)
        with _bench(place) as (bench, postgres_url):
            codes = _run_all(bench, postgres_url, arguments)
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    results = ", ".join(f"{name} {'passed' if code == 0 else 'FAILED'}" for name, code in codes.items())
    print(f"{results}, after {time.monotonic() - began:.0f} s in all", flush=True)
    return max(codes.values())


def _run_fast(arguments: Sequence[str]) -> int:
    """Run the fast tests. Installs only the virtual environment, and starts nothing. Returns pytest's exit code."""
    install_python(LOCKS["tests"])
    return subprocess.run([*_PYTEST, *_FAST, *arguments], cwd=ROOT, env=_without_settings(os.environ)).returncode


@contextlib.contextmanager
def _bench(place: Place) -> Iterator[tuple[Place, str]]:
    """A temporary installation with Redis, Docker and the images, and PostgreSQL's URL; removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="chef-test-"))
    folder.chmod(0o711)  # PostgreSQL runs as another user, and must reach its own folder
    started: list[Service] = []
    try:
        bench = Place(folder, _environment(place, folder))
        if not docker_engine.answers(bench.docker_host):
            started.append(docker_engine.start(place))  # keeps its images for the next run
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
    return _without_settings(place.environment) | {
        "CHEF_DATA_DIR": str(folder),
        # Parallel runs on the same engine must not touch each other's containers.
        "CHEF_INSTALLATION": f"test-{os.getpid()}",
        "SECRET_KEY": secrets.token_urlsafe(60),
        "DATABASE_URL": f"sqlite:///{folder / 'chef.sqlite3'}",
    }


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without the settings of a Chef on this machine."""
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
    """Run all lanes: the first prints to this terminal, the others at the end. Returns exit codes by lane."""
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
    if 0 in codes.values():  # if only some tests were requested, a run may have none of them
        codes = {name: 0 if code == _NO_TESTS else code for name, code in codes.items()}
    return codes


class _Lane:
    """One run of pytest, with its own data folder, installation name and Redis databases."""

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
            # Spaced: with `-n`, the workers of a lane use the following databases.
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
        """Stop it if it still runs, by SIGINT, so that its fixtures clean up."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()


def _raise_interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
