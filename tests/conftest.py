"""Fixtures for every test: users, tokens, uploads and, for the end-to-end tests, a whole running installation."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings
from rest_framework.test import APIClient

from builds import actions
from builds.models import Build
from builds.queue import forecast
from chef import settings as chef_settings
from projects.files.paths import NewFile
from projects.models import ApiToken
from tests import s3_server, services
from tests.installation import Installation
from tests.scripted_model import ScriptedModel

# Of the shared installation: less than the default, so that tests exceed it fast.
MAX_ARTIFACTS = 7_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        services.mark_by_fixtures(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture: fail the test with a hint if a service that it needs is missing."""
    if lacks := services.missing_for(item):
        pytest.fail(lacks, pytrace=False)


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder with a short path, as Unix sockets need one."""
    folder = Path(tempfile.mkdtemp(prefix="chef-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def chef(short_folder: Path) -> Iterator[Installation]:
    """A running installation shared by many tests; those that break things start their own."""
    folder = short_folder / "shared"
    folder.mkdir()
    installation = Installation(folder, CHEF_MAX_ARTIFACTS=str(MAX_ARTIFACTS))
    try:
        yield installation.start()
    finally:
        installation.stop()


@pytest.fixture(scope="session")
def s3() -> Iterator[s3_server.S3Server]:
    with s3_server.serving() as server:
        yield server


@pytest.fixture
def bucket(s3: s3_server.S3Server, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket for the test's artifacts, set up through an installation's settings."""
    name = s3.make_bucket()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # it is on this machine: bypass any proxy
    for variable, value in s3.settings(name).items():
        monkeypatch.setenv(variable, value)
    settings.STORAGES = {**settings.STORAGES, "default": chef_settings.artifact_store()}
    return name


@pytest.fixture(params=["in a folder", pytest.param("in a bucket", marks=pytest.mark.slow)])
def each_store(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> None:
    """Run the test with each kind of artifact store."""
    if request.param == "in a bucket":
        request.getfixturevalue("bucket")
    else:
        folder = {**settings.STORAGES["default"], "OPTIONS": {"location": str(tmp_path / "artifacts")}}
        settings.STORAGES = {**settings.STORAGES, "default": folder}


@pytest.fixture(autouse=True)
def fresh_forecasts() -> None:
    """Drop cached forecasts of the previous test's queue."""
    forecast.forget()


@pytest.fixture(autouse=True)
def no_static_file_scan(settings: Settings) -> None:
    """Keep each new client from reading the list of all static files: a tenth of the tests' time."""
    settings.WHITENOISE_AUTOREFRESH = True


@pytest.fixture(autouse=True)
def generous_rates(settings: Settings) -> None:
    """Raise the rate limits: all tests share one address, and on SQLite their owners share an id."""
    settings.RATE_READ = settings.RATE_WRITE = settings.RATE_ANONYMOUS = "100000/minute"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedModel]:
    """A model with scripted answers. Fails a test that sends requests which the real API would refuse."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # it is on this machine: bypass any proxy
    with ScriptedModel() as model:
        yield model
    assert not model.faults


@pytest.fixture
def owner(db: None) -> User:
    return User.objects.create_user("owner")


@pytest.fixture
def other(db: None) -> User:
    return User.objects.create_user("other")


@pytest.fixture
def make_client() -> Callable[..., APIClient]:
    """An API client with a new token of the user."""

    def make(user: User, **token: Any) -> APIClient:
        _, key = ApiToken.objects.create_key(name="test", owner=user, **token)
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {key}")
        return client

    return make


@pytest.fixture
def queue_build(owner: User) -> Callable[..., Build]:
    """Queue a build of one small file."""

    def queue(*, by: User | None = None, name: str = "project", **options: Any) -> Build:
        upload = {"files": [NewFile("index.html", b"<h1>hi</h1>")], "dependencies": {}, "strategy": {}}
        return actions.submit_project(by=by or owner, name=name, **{**upload, **options})

    return queue
