"""A pytest plugin: divides tests among parallel runs ("lanes"), so that these end at about the same time.

The variable TEST_LANE names this run, one of LANES. Without it, every test runs. Markers decide: tests with `once` run
on one database, others on both; tests with `waits` have their own lane.

Not pytest-xdist: three lanes keep two cores busy to the end, and each xdist worker would start its own installation.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the process that starts the runs has no pytest yet
    import pytest

# Each lane and its database.
LANES = {"sqlite": "sqlite", "postgresql": "postgresql", "sqlite-waiting": "sqlite", "postgresql-waiting": "postgresql"}


def belongs(item: pytest.Item, lane: str) -> bool:
    """Whether a test runs in a lane. Raises ValueError for a `once` with an unknown database."""
    once = item.get_closest_marker("once")
    database = (once.args or ("sqlite",))[0] if once else LANES[lane]
    if database not in LANES.values():
        raise ValueError(f"{item.nodeid}: once({database!r}) is not a database: write sqlite or postgresql")
    waits = item.get_closest_marker("waits") is not None
    return bool(database == LANES[lane]) and waits == lane.endswith("-waiting")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lane = os.environ.get("TEST_LANE", "")
    if not lane:
        return
    left_out = [item for item in items if not belongs(item, lane)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if belongs(item, lane)]
