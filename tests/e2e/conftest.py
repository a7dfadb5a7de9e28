"""Installations that the tests of a module share beside the one of all."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installation import Installation


@pytest.fixture(scope="module")
def fragile(short_folder: Path) -> Iterator[Installation]:
    """An installation whose parts are killed: few workers, and a lease that runs out soon."""
    folder = Path(tempfile.mkdtemp(prefix="f", dir=short_folder))
    installation = Installation(folder, CHEF_LEASE_SECONDS="5", WORKER_CONCURRENCY="2", CHEF_SHUTDOWN_GRACE_SECONDS="1")
    try:
        yield installation.start()
    finally:
        installation.stop()
