"""A complete installation for a test: Redis, database, web, workers and reaper as real processes, and a client.

Its processes are ended by process id, and everything is removed at the end; several can run in parallel on one engine.
The migrated database and the static files are made once and copied.
"""

import atexit
import contextlib
import functools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import docker
import httpx
import psycopg
from psycopg import sql

from tests.ports import answers, free_port

ROOT = Path(__file__).resolve().parent.parent
# From the environment at start: tests may change it later.
SERVER = os.environ.get("DATABASE_URL", "")
DATA_DIR = os.environ.get("CHEF_DATA_DIR", "")
T = TypeVar("T")


def until(check: Callable[[], T | None], *, seconds: float, what: str, every: float = 0.1) -> T:
    """The first true value of `check`. Raises AssertionError if there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(every)
    return value


class Installation:
    """A running installation. A client needs `url` and `token`; the rest is for tests that break things."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.name = f"test-{uuid.uuid4().hex[:8]}"
        self.port, self.redis_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = ""
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._database = _Database(self.name, folder)
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "chef.settings",
            "CHEF_DATA_DIR": str(folder),
            "CHEF_INSTALLATION": self.name,
            "SECRET_KEY": uuid.uuid4().hex * 2,
            "DATABASE_URL": self._database.url,
            "REDIS_URL": f"redis://127.0.0.1:{self.redis_port}/0",
            "PORT": str(self.port),
            "PYTHONUNBUFFERED": "1",
            **settings,
        }

    # --- Lifecycle -----------------------------------------------------------------------------------------------

    def start(self) -> "Installation":
        self._begin()
        shutil.copy(_registries(), self.folder)
        self.start_workers()
        self.start_generators()
        self.start_reaper()
        self._until_answering()
        return self

    def start_without_workers(self) -> "Installation":
        """Start only what answers requests; this needs no Docker."""
        self._begin()
        self._until_answering()
        return self

    def stop(self) -> None:
        self._end_together([name for name in self.processes if name != "redis"])
        self._end_together(list(self.processes))
        with contextlib.suppress(Exception):
            self.remove_leftovers()
        self._database.drop()

    def _begin(self) -> None:
        first = _first()
        (self.folder / "static").symlink_to(first.folder / "static")
        self._database.copy(first._database)
        self.token = first.token
        self.start_redis()
        self._spawn_web()

    def _end_together(self, names: list[str]) -> None:
        for name in names:
            self.processes[name].send_signal(signal.SIGTERM)
        for name in names:
            self._ended(name)

    def spawn(self, name: str, *argv: str, **environment: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                argv,
                cwd=ROOT,
                env={**self.environment, **environment},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def end(self, name: str, *, seconds: float = 40) -> int:
        self.processes[name].send_signal(signal.SIGTERM)
        return self._ended(name, seconds)

    def _ended(self, name: str, seconds: float = 40) -> int:
        process = self.processes.pop(name)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait(10)

    def start_redis(self) -> None:
        argv = ["redis-server", "--port", str(self.redis_port), "--bind", "127.0.0.1", "--save", "", "--dir"]
        self.spawn("redis", *argv, str(self.folder))
        until(lambda: answers(self.redis_port), seconds=10, what="Redis answers")

    def start_web(self) -> None:
        self._spawn_web()
        self._until_answering()

    def _spawn_web(self) -> None:
        argv = ["-m", "uvicorn", "chef.asgi:application", "--host", "127.0.0.1", "--port", str(self.port)]
        argv += ["--http", "builds.sites.ready_answers:ReadyProtocol", "--no-access-log"]
        self.spawn("web", sys.executable, *argv, CHEF_DB_POOL="1")

    def _until_answering(self) -> None:
        until(lambda: answers(self.port), seconds=60, what="the web process answers")

    def start_workers(self) -> None:
        self.spawn("workers", sys.executable, "manage.py", "run_workers")

    def start_generators(self) -> None:
        self.spawn("generators", sys.executable, "manage.py", "run_generators")

    def start_deliveries(self, name: str = "sender") -> None:
        """Start a sender of webhooks; each of several needs its own name."""
        self.spawn(name, sys.executable, "manage.py", "run_deliveries")

    def start_reaper(self) -> None:
        self.spawn("reaper", sys.executable, "manage.py", "run_reaper")

    def manage(self, *argv: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *argv], cwd=ROOT, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def make_token(self, user: str, *, scope: str = "write") -> str:
        return self.manage("create_token", user, "--create-user", "--scope", scope).splitlines()[-1]

    # --- As a client ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def client(self, token: str | None = None) -> Iterator[httpx.Client]:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        # Plain HTTP: reading the machine's certificates would take longer than most requests.
        with httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False, verify=False) as client:
            yield client

    def submit(self, files: dict[str, str], **body: Any) -> dict[str, Any]:
        with self.client() as client:
            answer = client.post("/v1/projects", json={"files": files, **body})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def get(self, path: str) -> Any:
        with self.client() as client:
            answer = client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def status(self, accepted: dict[str, Any]) -> dict[str, Any]:
        return dict(self.get(f"/v1/projects/{accepted['projectId']}/status?jobId={accepted['jobId']}"))

    def wait(self, accepted: dict[str, Any], *, seconds: float = 60) -> dict[str, Any]:
        """Wait until the build has ended; returns its document."""

        def ended() -> dict[str, Any] | None:
            document = self.status(accepted)
            return document if document["status"] in {"completed", "failed", "cancelled"} else None

        return until(ended, seconds=seconds, what=f"build {accepted['jobId']} ends", every=0.2)

    def log_text(self, accepted: dict[str, Any]) -> str:
        with self.client() as client:
            path = f"/v1/projects/{accepted['projectId']}/logs?jobId={accepted['jobId']}"
            return client.get(path, headers={"Accept": "text/plain"}).text

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Query the database directly."""
        return self._database.rows(query)

    # --- On the engine -------------------------------------------------------------------------------------------

    def containers(self, build: str = "", *, running: bool = False) -> list[dict[str, Any]]:
        labels = [f"chef.installation={self.name}"] + ([f"chef.build={build}"] if build else [])
        with _engine() as engine:
            return list(engine.containers(all=not running, filters={"label": labels}))

    def leftovers(self) -> list[str]:
        """Names of containers, volumes and networks with this installation's label."""
        mark = {"label": f"chef.installation={self.name}"}
        with _engine() as engine:
            found = [container["Id"] for container in engine.containers(all=True, filters=mark)]
            found += [volume["Name"] for volume in engine.volumes(filters=mark)["Volumes"] or []]
            return found + [network["Name"] for network in engine.networks(filters=mark)]

    def remove_leftovers(self) -> None:
        mark = {"label": f"chef.installation={self.name}"}
        with _engine() as engine:
            for container in engine.containers(all=True, filters=mark):
                engine.remove_container(container["Id"], force=True, v=True)
            for volume in engine.volumes(filters=mark)["Volumes"] or []:
                engine.remove_volume(volume["Name"], force=True)


@contextlib.contextmanager
def _engine() -> Iterator[docker.APIClient]:
    engine = docker.APIClient(base_url=os.environ.get("DOCKER_HOST"), version="auto", timeout=30)
    try:
        yield engine
    finally:
        engine.close()


class _Database:
    """The installation's own database: an SQLite file, or a database on the server of DATABASE_URL."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name.replace("-", "_")
        self._on_server = SERVER.startswith("postgres")
        self.url = self._url() if self._on_server else f"sqlite:///{folder / 'chef.sqlite3'}"

    def _url(self) -> str:
        base, _, query = SERVER.partition("?")
        return f"{base.rpartition('/')[0]}/{self._name}" + (f"?{query}" if query else "")

    def create(self) -> None:
        self._run("CREATE DATABASE {}", self._name)

    def copy(self, other: "_Database") -> None:
        """Create it as a copy of another, which must have no connections."""
        if self._on_server:
            self._run("CREATE DATABASE {} TEMPLATE {}", self._name, other._name)
            return
        with (
            contextlib.closing(sqlite3.connect(other._file)) as source,
            contextlib.closing(sqlite3.connect(self._file)) as target,
        ):
            source.backup(target)

    def drop(self) -> None:
        if "_connection" in self.__dict__:
            self._connection.close()
        self._run("DROP DATABASE IF EXISTS {} WITH (FORCE)", self._name)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        if self._on_server:
            return self._connection.execute(query.encode()).fetchall()
        with contextlib.closing(sqlite3.connect(self._file, timeout=20)) as file:
            return file.execute(query).fetchall()

    @functools.cached_property
    def _connection(self) -> psycopg.Connection[Any]:
        """Kept open: waiting tests query often, and the server starts a process per connection."""
        return psycopg.connect(self.url, autocommit=True)

    @property
    def _file(self) -> str:
        return self.url.removeprefix("sqlite:///")

    def _run(self, statement: str, *names: str) -> None:
        if self._on_server:
            with psycopg.connect(SERVER, autocommit=True) as connection:
                connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


# --- Made once -----------------------------------------------------------------------------------------------------


@functools.cache
def _first() -> Installation:
    """A template that never runs: the others copy its migrated database, the tester's token and the static files."""
    folder = Path(tempfile.mkdtemp(prefix="chef-first-"))
    first = Installation(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(_drop, first._database)
    first._database.create()
    first.manage("migrate", "--verbosity=0")
    first.token = first.make_token("tester", scope="publish")
    collected = Path(DATA_DIR, "static")
    if DATA_DIR and collected.is_dir():
        (folder / "static").symlink_to(collected.resolve())
    else:
        first.manage("collectstatic", "--noinput", "--verbosity=0")
    return first


@functools.cache
def _registries() -> Path:
    """The file with the package registries' addresses, written by `prepare_runtimes`."""
    _first().manage("prepare_runtimes")
    return _first().folder / "registries.json"


def _drop(database: _Database) -> None:
    with contextlib.suppress(psycopg.Error):
        database.drop()
