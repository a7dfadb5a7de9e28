"""A pytest plugin: tests that no database has a part in run once, so that the runs beside each other end together.

The variable TEST_LANE says which run this is: `sqlite`, `postgresql`, or `rest`, which has only such tests. Without it,
every test runs.
"""

import os
from pathlib import Path

import pytest

from scripts.place import ROOT

_ONCE = {
    "sqlite": ("e2e/test_starters.py", "test_start.py"),
    "postgresql": ("e2e/test_schema.py",),  # which sends all kinds of texts and numbers: it takes fewer than SQLite
    "rest": (
        *(f"builds/test_{name}.py" for name in ("detection", "egress", "images", "node_projects", "python_projects")),
        *(f"builds/test_{name}.py" for name in ("redaction", "registries", "runtimes", "toolbox", "verdicts")),
        *(f"e2e/test_{name}.py" for name in ("corpus", "downloads", "generations", "limits", "logs", "outputs")),
        *(f"e2e/test_{name}.py" for name in ("refusals", "repairs", "sealing", "secrets", "uploads")),
        "projects/engine",
        *(f"projects/test_{name}.py" for name in ("archives", "hostile_archives", "parsers", "paths", "starters")),
        *(f"test_{name}.py" for name in ("compose", "downloads", "reading", "scripts", "streams")),
    ),
}
_LANE_OF = {ROOT / "tests" / path: lane for lane, paths in _ONCE.items() for path in paths}


def belongs(path: Path, lane: str) -> bool:
    """Whether the tests of a file run in a lane: those of which `_ONCE` says nothing, beside each database."""
    only = next((_LANE_OF[each] for each in (path, *path.parents) if each in _LANE_OF), None)
    return lane == only if only else lane != "rest"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lane = os.environ.get("TEST_LANE", "")
    if not lane:
        return
    left_out = [item for item in items if not belongs(item.path, lane)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if belongs(item.path, lane)]
