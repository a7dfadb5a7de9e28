"""A pytest plugin: tests that no database has a part in run once, so that the runs beside each other end together.

The variable TEST_LANE says which run this is: `sqlite` or `postgresql`. Without it, every test runs.
"""

import os
from pathlib import Path

import pytest

from scripts.place import ROOT

_ONCE = {
    "sqlite": (
        "builds/egress",
        *(f"builds/test_{name}.py" for name in ("detection", "images", "node_projects", "python_projects")),
        *(f"builds/test_{name}.py" for name in ("redaction", "registries", "runtimes", "toolbox", "verdicts")),
        *(f"builds/sites/test_{name}.py" for name in ("names", "rules", "serving")),
        "builds/webhooks/test_endpoints.py",
        *(f"e2e/test_{name}.py" for name in ("corpus", "generations", "outside", "starters")),
        "e2e/pages",
        *(f"projects/test_{name}.py" for name in ("archives", "hostile_archives", "paths", "starters")),
        *(f"test_{name}.py" for name in ("compose", "scripts", "start", "streams")),
    ),
    "postgresql": (  # all kinds of texts and numbers are sent here: it takes fewer of them than SQLite
        *(f"e2e/test_{name}.py" for name in ("downloads", "limits", "logs", "outputs", "refusals", "repairs")),
        *(f"e2e/test_{name}.py" for name in ("schema", "sealing", "secrets", "sites", "uploads", "webhooks")),
        *(f"builds/webhooks/test_{name}.py" for name in ("admin", "guard", "transport")),
        *(f"builds/admin/test_{name}.py" for name in ("build_pages", "roles")),
        "projects/engine",
        "projects/test_parsers.py",
        *(f"test_{name}.py" for name in ("downloads", "reading")),
    ),
}
_LANE_OF = {ROOT / "tests" / path: lane for lane, paths in _ONCE.items() for path in paths}


def belongs(path: Path, lane: str) -> bool:
    """Whether the tests of a file run in a lane: those of which `_ONCE` says nothing run in each."""
    only = next((_LANE_OF[each] for each in (path, *path.parents) if each in _LANE_OF), None)
    return only in (None, lane)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lane = os.environ.get("TEST_LANE", "")
    if not lane:
        return
    left_out = [item for item in items if not belongs(item.path, lane)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if belongs(item.path, lane)]
