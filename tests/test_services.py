"""The test set-up: settings, services by markers, and the lanes that tests run in."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.lanes import LANES, belongs
from scripts.place import ROOT
from tests import services
from tests.settings import OWN_REDIS

pytestmark = pytest.mark.once

PRINT_SETTINGS = (
    "import os; from tests import settings as s; "
    "print(s.DATA_DIR, s.INSTALLATION, s.REDIS_URL, s.DATABASES['default']['NAME'], s.DEBUG, sep='\\n')"
)


class Item:
    """A test item with the given markers."""

    nodeid = "tests/test_it.py::test_it"

    def __init__(self, *markers: Any) -> None:
        self._markers = {marker.name: marker for marker in markers}

    def get_closest_marker(self, name: str) -> Any:
        return self._markers.get(name)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Clear the cached checks of services before and after the test."""
    checks: Any = services._CHECKS.values()
    for check in checks:
        check.cache_clear()
    yield
    for check in checks:
        check.cache_clear()


def settings_by(**environment: str) -> list[str]:
    """Data folder, installation, Redis, database and DEBUG, as set under an environment."""
    plain = {"PATH": os.environ["PATH"], **environment}
    done = subprocess.run([sys.executable, "-c", PRINT_SETTINGS], cwd=ROOT, env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_settings_need_no_variables_and_ignore_this_machine_s_configuration() -> None:
    folder, installation, redis, database, debug = settings_by(DEBUG="1", PORT="none", S3_BUCKET="mine", AI_API_KEY="x")

    assert folder.startswith("/tmp/chef-tests-")
    assert not Path(folder).exists(), "removed when its process ends"
    assert installation.startswith("test-")
    assert redis.startswith("redis://127.0.0.1:2")
    assert database == f"{folder}/chef.sqlite3"
    assert debug == "False"


def test_workers_of_one_run_share_nothing(tmp_path: Path) -> None:
    given = {"CHEF_DATA_DIR": str(tmp_path), "CHEF_INSTALLATION": "run", "REDIS_URL": "redis://127.0.0.1:1/4"}

    found = [settings_by(**given, PYTEST_XDIST_WORKER=worker) for worker in ("gw0", "gw1")]

    assert found == [
        [f"{tmp_path}/gw0", "run-gw0", "redis://127.0.0.1:1/5", f"{tmp_path}/gw0/chef.sqlite3", "False"],
        [f"{tmp_path}/gw1", "run-gw1", "redis://127.0.0.1:1/6", f"{tmp_path}/gw1/chef.sqlite3", "False"],
    ]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("marker", "environment", "message"),
    [
        ("docker", {"DOCKER_HOST": "tcp://127.0.0.1:1"}, "No Docker Engine answers at tcp://127.0.0.1:1: start it"),
        ("redis", {"PATH": "/nowhere"}, "redis-server is missing: install it"),
        ("redis", {"REDIS_URL": "redis://127.0.0.1:1/0"}, "No Redis answers at REDIS_URL: start it"),
    ],
)
def test_a_missing_service_is_reported_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, marker: str, environment: dict[str, str], message: str
) -> None:
    monkeypatch.delenv(OWN_REDIS, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("shutil.which", lambda name: os.environ["PATH"] != "/nowhere" and name)
    item: Any = Item(getattr(pytest.mark, marker).mark)

    lacks = services.missing_for(item)

    assert lacks.startswith(message)
    assert "./scripts/test.sh" in lacks


@pytest.mark.parametrize(
    ("markers", "lanes"),
    [
        ([], {"sqlite", "postgresql"}),
        ([pytest.mark.once], {"sqlite"}),
        ([pytest.mark.once("postgresql")], {"postgresql"}),
        ([pytest.mark.waits], {"sqlite-waiting", "postgresql-waiting"}),
        ([pytest.mark.once, pytest.mark.waits], {"sqlite-waiting"}),
    ],
)
def test_markers_decide_the_lanes_of_a_test(markers: list[pytest.MarkDecorator], lanes: set[str]) -> None:
    item: Any = Item(*(marker.mark for marker in markers))

    assert {lane for lane in LANES if belongs(item, lane)} == lanes


def test_an_unknown_database_is_refused() -> None:
    item: Any = Item(pytest.mark.once("mysql").mark)

    with pytest.raises(ValueError, match=r"test_it: once\('mysql'\) is not a database"):
        belongs(item, "sqlite")
