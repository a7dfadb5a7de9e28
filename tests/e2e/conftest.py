"""Installations shared by the tests of one module, besides the one shared by all."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installation import Installation


@pytest.fixture(scope="module")
def fragile(short_folder: Path) -> Iterator[Installation]:
    """An installation whose processes tests may kill: few workers and a short lease."""
    folder = Path(tempfile.mkdtemp(prefix="f", dir=short_folder))
    installation = Installation(folder, CHEF_LEASE_SECONDS="5", WORKER_CONCURRENCY="2", CHEF_SHUTDOWN_GRACE_SECONDS="1")
    try:
        yield installation.start()
    finally:
        installation.stop()
