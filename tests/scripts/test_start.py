"""`./scripts/start.sh` as a new user runs it, in its own data folder."""

import os
import re
import signal
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from scripts.place import ROOT, read_env_file
from scripts.processes import free_port, until

pytestmark = [pytest.mark.once, pytest.mark.docker, pytest.mark.redis, pytest.mark.network, pytest.mark.slow]

# How this machine reaches things; start.sh has to find out everything else.
KEPT = ("PATH", "HOME", "LANG", "DOCKER_HOST", "SSL_CERT_FILE", "RUNTIME_REGISTRY", "PIP_CONFIG_FILE")
READY = "Chef keeps running at"


class Start:
    """Runs of start.sh in one data folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        # An unused port, and no Redis at the usual address: start.sh has to start one.
        changed = {"CHEF_DATA_DIR": str(folder), "PORT": str(free_port()), "REDIS_PORT": str(free_port())}
        self.environment = {**kept, **changed}
        self.output = folder.with_suffix(".out")
        self.first_output = ""

    @property
    def quickstart(self) -> dict[str, str]:
        return read_env_file(self.folder / "quickstart.env")

    def pause(self) -> None:
        """Pause the queue, as staff could before Chef was stopped."""
        with closing(sqlite3.connect(self.folder / "chef.sqlite3")) as database, database:
            database.execute(
                "INSERT INTO builds_queuepause (id, reason, created_at) VALUES (1, 'looking', '2026-01-01 00:00:00')"
            )

    def once(self) -> str:
        """Run to the end and return what was printed; fails the test if the exit code is not 0."""
        argv = ["./scripts/start.sh", "--once"]
        done = subprocess.run(argv, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def in_foreground(self) -> Iterator[subprocess.Popen[bytes]]:
        """A run without the example, ready; the caller may end it."""
        argv = ["./scripts/start.sh", "--no-example"]
        with (
            self.output.open("wb") as output,
            subprocess.Popen(argv, cwd=ROOT, env=self.environment, stdout=output, stderr=output) as process,
        ):
            try:
                is_ready = until(lambda: READY in self.printed or process.poll() is not None, seconds=90)
                assert is_ready, self.printed
                assert process.poll() is None, self.printed
                yield process
            finally:
                process.terminate()

    @property
    def printed(self) -> str:
        return self.output.read_text()

    def processes(self) -> list[int]:
        """Every process that carries this data folder in its environment."""
        mark = f"CHEF_DATA_DIR={self.folder}\0".encode()
        return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if mark in _content(path)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # it has just ended


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """One data folder for all of these tests, prepared by a first run."""
    with tempfile.TemporaryDirectory(prefix="chef-", dir="/tmp") as folder:
        start = Start(Path(folder) / "data")
        start.first_output = start.once()
        yield start


def test_once_builds_the_examples_and_leaves_nothing_running(start: Start) -> None:
    printed = start.first_output

    assert re.findall(r"^(\S+): \d+ files sent", printed, re.MULTILINE) == ["react-ts-vite", "python-package"]
    assert len(re.findall(r"^  completed after", printed, re.MULTILINE)) == 3
    assert "“Build a simple todo app with React”\n" in printed
    assert "so this is a React app.\n  18 files, build " in printed
    assert "dist/index.html" in printed
    assert 'curl -sS -H "Authorization: Bearer $CHEF_TOKEN" "$CHEF_URL/v1/projects/' in printed
    assert start.processes() == []


def test_next_start_installs_nothing_and_keeps_token_and_password(start: Start) -> None:
    first = start.quickstart

    with start.in_foreground() as process:
        known = start.quickstart
        headers = {"Authorization": f"Bearer {known['CHEF_TOKEN']}"}
        with httpx.Client(base_url=known["CHEF_URL"], headers=headers, trust_env=False, timeout=30) as client:
            health = client.get("/health").json()
            refusal = client.post("/v1/projects", json={})
        process.send_signal(signal.SIGINT)
        code = process.wait(60)

    assert code == 0
    assert known == first
    assert first["CHEF_PASSWORD"] not in start.printed
    assert (start.folder / "quickstart.env").stat().st_mode & 0o077 == 0
    assert health["status"] == "ok"
    assert refusal.status_code == 400  # the token is valid, the body is not
    assert "packages" not in start.printed
    assert start.processes() == []


def test_problems_are_reported_and_no_process_survives_a_kill(start: Start) -> None:
    start.pause()
    with socket.create_server(("127.0.0.1", int(start.environment["PORT"]))) as taken, start.in_foreground() as process:
        port = taken.getsockname()[1]
        argv = ["./scripts/start.sh", "--once"]
        second = subprocess.run(argv, cwd=ROOT, env=start.environment, capture_output=True, text=True, timeout=60)
        running = start.processes()
        process.kill()
        process.wait()

        assert second.returncode == 1
        assert f"Chef already runs from {start.folder} (process {process.pid})" in second.stderr
        assert f"Port {port} is taken: using {start.quickstart['CHEF_URL'].rpartition(':')[2]}." in start.printed
        assert "The queue is paused, so nothing is built." in start.printed
        assert len(running) > 4
        assert until(lambda: start.processes() == [], seconds=40), start.processes()
