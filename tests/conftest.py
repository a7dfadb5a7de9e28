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

# The shared installation's: fewer than usual, so that a build is soon past it.
MAX_ARTIFACTS = 7_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        services.mark_by_fixtures(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture: what a test needs is there, or the test fails with what to do."""
    if lacks := services.missing_for(item):
        pytest.fail(lacks, pytrace=False)


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder with a short path: unix sockets allow no long ones."""
    folder = Path(tempfile.mkdtemp(prefix="chef-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def chef(short_folder: Path) -> Iterator[Installation]:
    """A running installation that many tests share; those that break things start one of their own."""
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
    """A bucket in which this test's artifacts are, by the settings that an installation reads."""
    name = s3.make_bucket()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # it is on this machine, whatever proxy the machine has
    for variable, value in s3.settings(name).items():
        monkeypatch.setenv(variable, value)
    settings.STORAGES = {**settings.STORAGES, "default": chef_settings.artifact_store()}
    return name


@pytest.fixture(params=["in a folder", pytest.param("in a bucket", marks=pytest.mark.slow)])
def each_store(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> None:
    """Where a test's artifacts are: the test runs on each of the two."""
    if request.param == "in a bucket":
        request.getfixturevalue("bucket")
    else:
        folder = {**settings.STORAGES["default"], "OPTIONS": {"location": str(tmp_path / "artifacts")}}
        settings.STORAGES = {**settings.STORAGES, "default": folder}


@pytest.fixture(autouse=True)
def nothing_foreseen() -> None:
    """What the test before has foreseen of its queue is not for this one."""
    forecast.forget()


@pytest.fixture(autouse=True)
def static_files_unread(settings: Settings) -> None:
    """Each new client would read the list of all static files and their headers: a tenth of all that tests cost."""
    settings.WHITENOISE_AUTOREFRESH = True


@pytest.fixture(autouse=True)
def room_for_strangers(settings: Settings) -> None:
    """All tests come from one address: what they ask for without a good token must not be too much together."""
    settings.RATE_ANONYMOUS = "100000/minute"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedModel]:
    """A model that says what the test tells it to. Fails a test whose requests the real API would not take."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # it is on this machine, whatever proxy the machine has
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
    """An API client with a fresh token of a user."""

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
