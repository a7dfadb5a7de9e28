"""Helpers for tests that kill workers: find the processes, and check that builds recover."""

import contextlib
from typing import Any

import psutil

from tests.e2e.slow_builds import terminal_events
from tests.installation import Installation, until


def work_horses(installation: Installation) -> list[psutil.Process]:
    """The processes that run builds (RQ work horses): children of the pool's workers."""
    found = []
    with contextlib.suppress(psutil.Error):
        for worker in psutil.Process(installation.processes["workers"].pid).children():
            found += worker.children()
    return found


def assert_recovered(
    installation: Installation, accepted: dict[str, Any], *, attempts: int = 2, outputs: int = 20
) -> None:
    """Assert: completed on a later attempt, ended once, artifacts and log of that attempt only, nothing left over."""
    document = installation.wait(accepted, seconds=90)
    assert document["status"] == "completed", document["verdict"]
    # On a busy machine, a lease of five seconds may expire again.
    assert document["attempt"] == 1 if attempts == 1 else document["attempt"] >= attempts
    job = accepted["jobId"]
    assert terminal_events(installation, accepted) == ["completed"]
    listing = installation.get(f"/v1/projects/{accepted['projectId']}/artifacts")
    assert len(listing["artifacts"]) == outputs
    text = installation.log_text(accepted)
    assert (text.count("installing\n"), text.count("building\n")) == (1, 1)
    until(lambda: not installation.containers(job), seconds=30, what="its containers are gone")
    until(lambda: not [n for n in installation.leftovers() if job in n], seconds=30, what="its volumes are gone")
