"""A pytest plugin: tests that no database has a part in run once, in a run of their own beside those of the databases.

The variable TEST_LANE says which run this is: `once`, or the name of a database. Without it, every test runs.
"""

import os
from pathlib import Path

import pytest

from scripts.place import ROOT

ONCE = {
    ROOT / "tests" / path
    for path in (
        *(f"builds/test_{name}.py" for name in ("detection", "egress", "images", "node_projects", "python_projects")),
        *(f"builds/test_{name}.py" for name in ("redaction", "registries", "runtimes", "toolbox", "verdicts")),
        *(f"e2e/test_{name}.py" for name in ("corpus", "downloads", "generations", "limits", "logs", "outputs")),
        *(f"e2e/test_{name}.py" for name in ("refusals", "repairs", "schema", "sealing", "secrets", "starters")),
        "e2e/test_uploads.py",
        "projects/engine",
        *(f"projects/test_{name}.py" for name in ("archives", "hostile_archives", "parsers", "paths", "starters")),
        *(f"test_{name}.py" for name in ("compose", "downloads", "reading", "scripts", "start", "streams")),
    )
}


def runs_once(path: Path) -> bool:
    """Whether a test file, or the folder that it is in, is one of those."""
    return not ONCE.isdisjoint({path, *path.parents})


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lane = os.environ.get("TEST_LANE", "")
    if not lane:
        return
    left_out = [item for item in items if runs_once(item.path) != (lane == "once")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if runs_once(item.path) == (lane == "once")]
