"""A pytest plugin: which of the runs beside each other a test belongs to, so that they end together.

The variable TEST_LANE says which run this is: one of LANES. Without it, every test runs. What no database has a part in
runs once, and what mostly waits, for clocks such as those of leases or for a browser, runs beside all else.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.place import ROOT

if TYPE_CHECKING:  # what starts the runs has no pytest yet
    import pytest

_ONCE = {
    "sqlite": (
        "builds/egress",
        "builds/pages",
        "builds/sandbox",
        *(f"builds/test_{name}.py" for name in ("detection", "images", "node_projects", "python_projects")),
        *(f"builds/test_{name}.py" for name in ("redaction", "registries", "runtimes", "toolbox", "verdicts")),
        *(f"builds/test_{name}.py" for name in ("ansi", "forecast", "simulation")),
        "projects/generator/test_misbehaviour.py",
        *(f"builds/sites/test_{name}.py" for name in ("names", "rules", "serving")),
        "builds/webhooks/test_endpoints.py",
        *(f"e2e/test_{name}.py" for name in ("cancel", "corpus", "generations", "outside", "s3_store", "starters")),
        "e2e/pages",
        *(f"projects/test_{name}.py" for name in ("archives", "hostile_archives", "paths", "rate_limits", "starters")),
        *(f"test_{name}.py" for name in ("compose", "doors", "scripts", "start", "streams")),
    ),
    "postgresql": (  # all kinds of texts and numbers are sent here: it takes fewer of them than SQLite
        *(f"e2e/test_{name}.py" for name in ("downloads", "limits", "live", "logs", "outputs", "refusals", "repairs")),
        *(f"e2e/test_{name}.py" for name in ("faults_by_phase", "schema", "sealing", "secrets", "sites", "uploads")),
        "e2e/test_webhooks.py",
        *(f"builds/hooks/test_{name}.py" for name in ("results", "taking")),
        *(f"builds/webhooks/test_{name}.py" for name in ("admin", "guard", "transport")),
        *(f"builds/admin/test_{name}.py" for name in ("build_pages", "lists", "roles")),
        "projects/engine",
        "projects/test_parsers.py",
        *(f"test_{name}.py" for name in ("downloads", "reading", "s3_store")),
    ),
}
_WAITING = (
    "e2e/pages",
    *(f"e2e/test_{name}.py" for name in ("cancel", "cancel_races", "faults", "faults_by_phase", "live", "outside")),
    *(f"e2e/test_{name}.py" for name in ("turns", "twice", "webhooks")),
)
# Each lane, and the database that it is on.
LANES = {"sqlite": "sqlite", "postgresql": "postgresql", "sqlite-waiting": "sqlite", "postgresql-waiting": "postgresql"}
_DATABASE_OF = {ROOT / "tests" / path: database for database, paths in _ONCE.items() for path in paths}
_WAITING_PATHS = frozenset(ROOT / "tests" / path for path in _WAITING)


def belongs(path: Path, lane: str) -> bool:
    """Whether the tests of a file run in a lane: those of which `_ONCE` says nothing run on each database."""
    only = next((_DATABASE_OF[each] for each in (path, *path.parents) if each in _DATABASE_OF), None)
    waits = not _WAITING_PATHS.isdisjoint((path, *path.parents))
    return only in (None, LANES[lane]) and waits == lane.endswith("-waiting")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """What does not belong here is not even read; a file that is asked for by its name is, and then left out below."""
    lane = os.environ.get("TEST_LANE", "")
    is_left_out = lane and collection_path.name.startswith("test_") and not belongs(collection_path, lane)
    return True if is_left_out else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lane = os.environ.get("TEST_LANE", "")
    if not lane:
        return
    left_out = [item for item in items if not belongs(item.path, lane)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if belongs(item.path, lane)]
