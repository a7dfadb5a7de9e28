"""Fixtures for tests of whole attempts: see tests.builds.runner.attempts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from builds.logs.writer import LogWriter
from builds.models import Build
from builds.queue.claims import BuildLease, claim
from tests.builds.runner.attempts import STRATEGY, working_sandbox
from tests.builds.sandbox.fake import FakeSandbox


@pytest.fixture
def sandbox() -> FakeSandbox:
    return working_sandbox()


@pytest.fixture
def artifact_folder(settings: Settings, tmp_path: Path) -> Path:
    """The folder of this test's artifacts."""
    folder = tmp_path / "artifacts"
    options = {**settings.STORAGES["default"], "OPTIONS": {"location": str(folder)}}
    settings.STORAGES = {**settings.STORAGES, "default": options}
    return folder


@pytest.fixture
def claimed(queue_build: Callable[..., Build], artifact_folder: Path) -> Callable[..., BuildLease]:
    """Queue and claim a build of one page with STRATEGY and the test's additions."""

    def claim_one(*, strategy: dict[str, Any] | None = None, **options: Any) -> BuildLease:
        build = queue_build(strategy=STRATEGY | (strategy or {}), **options)
        lease = claim("worker")
        assert lease
        assert lease.build == build
        return lease

    return claim_one


@pytest.fixture
def log_at_the_end_of_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the log's thread: its database connection does not see the builds of a test's transaction.

    The log is then written at the end of each phase.
    """
    monkeypatch.setattr(LogWriter, "_flush_regularly", lambda log: None)
