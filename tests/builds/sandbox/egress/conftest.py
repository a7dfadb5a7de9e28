import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builds.sandbox.egress.peers import Client


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, because of the limit for sockets, accessible to the container's user."""
    parent = Path(tempfile.mkdtemp(prefix="egress-"))
    parent.chmod(0o755)
    yield parent / "run"
    shutil.rmtree(parent)


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore the machine's upstream proxy, if any: it cannot reach this test's loopback."""
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def client(folder: Path, direct: None) -> Client:
    return Client(folder)
