"""The services that tests need, by their markers: found, started if that is cheap, or asked for.

A test whose service is missing fails with what to do; it is never skipped. Markers that follow from a fixture are
added here; all others are written in the tests.
"""

import atexit
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from scripts import docker_engine, redis_server
from scripts.packages import program
from scripts.place import DEFAULT_DOCKER_HOST
from scripts.postgres import programs_folder
from scripts.processes import Service, SetupError, bring_up
from tests.settings import OWN_REDIS

# Markers by fixture: an installation starts its own Redis, and needs an engine for its builds.
_BY_FIXTURE = {
    "chef": ("docker", "redis"),
    "fragile": ("docker", "redis"),
    "chrome": ("browser",),
    "s3": ("slow",),  # a server in Python, which handles every byte
}
_OTHERWISE = "`./scripts/test.sh` provides all services; `./scripts/test.sh --fast` runs the tests that need none."


def mark_by_fixtures(item: pytest.Item) -> None:
    for fixture in _BY_FIXTURE.keys() & set(getattr(item, "fixturenames", ())):
        for marker in _BY_FIXTURE[fixture]:
            item.add_marker(marker)


def missing_for(item: pytest.Item) -> str:
    """What the test needs but this machine lacks, with what to do; empty if it can run."""
    wanted = (check for name, check in _CHECKS.items() if item.get_closest_marker(name))
    lacks = " ".join(filter(None, (check() for check in wanted)))
    return f"{lacks} {_OTHERWISE}" if lacks else ""


@cache
def _docker() -> str:
    host = os.environ.get("DOCKER_HOST") or DEFAULT_DOCKER_HOST
    try:
        found = docker_engine.answers(host)
    except SetupError as fault:
        return str(fault)
    return "" if found else f"No Docker Engine answers at {host}: start it, or set DOCKER_HOST."


@cache
def _redis() -> str:
    """Installations start their own Redis, so the program is needed in any case."""
    url = os.environ["REDIS_URL"]
    if not shutil.which("redis-server"):
        return "redis-server is missing: install it (Debian's package is redis-server)."
    if redis_server.answers(url):
        return ""
    return _start_redis(url) if OWN_REDIS in os.environ else "No Redis answers at REDIS_URL: start it, or unset that."


def _start_redis(url: str) -> str:
    folder, port = Path(os.environ["CHEF_DATA_DIR"]), str(urlsplit(url).port)
    argv = ["redis-server", "--bind", "127.0.0.1", "--port", port, "--save", ""]
    service = Service("redis", argv, log=folder / "redis.log", environment=os.environ, folder=folder)
    try:
        bring_up(service, lambda: redis_server.answers(url), seconds=20)
    except SetupError as fault:
        return str(fault)
    atexit.register(_stop, service, os.getpid())
    return ""


def _stop(service: Service, ours: int) -> None:
    if os.getpid() == ours:  # not in a fork of it
        service.stop()


@cache
def _postgres() -> str:
    return "" if programs_folder() else "PostgreSQL is missing: install it (Debian's package is postgresql)."


@cache
def _browser() -> str:
    lacks = [name for name in ("chromium", "chromedriver") if not program(name)]
    return f"{' and '.join(lacks)} missing: install Debian's packages chromium and chromium-driver." if lacks else ""


_CHECKS: dict[str, Callable[[], str]] = {
    "docker": _docker,
    "redis": _redis,
    "postgres": _postgres,
    "browser": _browser,
}
