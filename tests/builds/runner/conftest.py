"""What the tests of whole attempts share: see tests.builds.runner.attempts."""

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
    """The folder that this test's artifacts are in."""
    folder = tmp_path / "artifacts"
    options = {**settings.STORAGES["default"], "OPTIONS": {"location": str(folder)}}
    settings.STORAGES = {**settings.STORAGES, "default": options}
    return folder


@pytest.fixture
def claimed(queue_build: Callable[..., Build], artifact_folder: Path) -> Callable[..., BuildLease]:
    """Queue a build of one page by STRATEGY and what a test adds to it, and claim it."""

    def claim_one(*, strategy: dict[str, Any] | None = None, **options: Any) -> BuildLease:
        build = queue_build(strategy=STRATEGY | (strategy or {}), **options)
        lease = claim("worker")
        assert lease
        assert lease.build == build
        return lease

    return claim_one


@pytest.fixture
def log_at_the_end_of_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the log's own thread write nothing: its connection sees no build that a test's transaction has made.

    What it would have written while a phase runs is written as the phase ends.
    """
    monkeypatch.setattr(LogWriter, "_flush_regularly", lambda log: None)
