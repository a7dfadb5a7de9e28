"""How tests kill what runs builds, and see that it was made good."""

import contextlib
from typing import Any

import psutil

from tests.e2e.dwelling import terminal_events
from tests.installation import Installation, until


def horses(installation: Installation) -> list[psutil.Process]:
    """The processes that run builds: children of the pool's workers."""
    found = []
    with contextlib.suppress(psutil.Error):
        for worker in psutil.Process(installation.processes["workers"].pid).children():
            found += worker.children()
    return found


def assert_recovered(
    installation: Installation, accepted: dict[str, Any], *, attempts: int = 2, outputs: int = 20
) -> None:
    """Completed on a later attempt, ended once, complete artifacts and log of that attempt only, nothing left."""
    document = installation.wait(accepted, seconds=90)
    assert document["status"] == "completed", document["verdict"]
    # On a busy machine a lease of five seconds may run out once more.
    assert document["attempt"] == 1 if attempts == 1 else document["attempt"] >= attempts
    job = accepted["jobId"]
    assert terminal_events(installation, accepted) == ["completed"]
    listing = installation.get(f"/v1/projects/{accepted['projectId']}/artifacts")
    assert len(listing["artifacts"]) == outputs
    text = installation.log_text(accepted)
    assert (text.count("installing\n"), text.count("building\n")) == (1, 1)
    until(lambda: not installation.containers(job), seconds=30, what="its containers are gone")
    until(lambda: not [n for n in installation.leftovers() if job in n], seconds=30, what="its volumes are gone")
