"""A pytest plugin: which of the runs beside each other a test belongs to, so that they end together.

The variable TEST_LANE says which run this is: one of LANES. Without it, every test runs. Markers decide: what has
`once` runs on one database, all else on both; what has `waits` runs beside all else.

Not pytest-xdist: three runs keep two cores busy to the end, and each of its workers would start an installation of its
own beside theirs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what starts the runs has no pytest yet
    import pytest

# Each lane, and the database that it is on.
LANES = {"sqlite": "sqlite", "postgresql": "postgresql", "sqlite-waiting": "sqlite", "postgresql-waiting": "postgresql"}


def belongs(item: pytest.Item, lane: str) -> bool:
    """Whether a test runs in a lane. Raises ValueError for a `once` that names no database."""
    once = item.get_closest_marker("once")
    database = (once.args or ("sqlite",))[0] if once else LANES[lane]
    if database not in LANES.values():
        raise ValueError(f"{item.nodeid}: once({database!r}) is no database: write sqlite or postgresql")
    waits = item.get_closest_marker("waits") is not None
    return bool(database == LANES[lane]) and waits == lane.endswith("-waiting")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lane = os.environ.get("TEST_LANE", "")
    if not lane:
        return
    left_out = [item for item in items if not belongs(item, lane)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if belongs(item, lane)]
