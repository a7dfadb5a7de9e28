"""Real faults under real builds: each is tried again by itself, ends once, and leaves nothing behind."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from tests.e2e.dwelling import DWELLING, Slow, terminal_events, wait_for_phase
from tests.installation import Installation, until


@pytest.fixture(scope="module")
def fragile(short_folder: Path) -> Iterator[Installation]:
    """An installation whose parts are killed: few workers, and a lease that runs out soon."""
    folder = short_folder / "fragile"
    folder.mkdir()
    installation = Installation(folder, CHEF_LEASE_SECONDS="5", WORKER_CONCURRENCY="2", CHEF_SHUTDOWN_GRACE_SECONDS="1")
    try:
        yield installation.start()
    finally:
        installation.stop()


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


@pytest.mark.parametrize("phase", DWELLING)
def test_kill_9_of_the_build_s_process_and_its_worker(fragile: Installation, phase: str) -> None:
    project = DWELLING[phase]
    accepted = project.submit(fragile)
    wait_for_phase(fragile, accepted, phase)

    for horse in horses(fragile):
        worker = horse.parent()
        horse.kill()
        if worker:
            worker.kill()

    assert_recovered(fragile, accepted, outputs=project.outputs)


def test_kill_9_of_the_build_s_process_alone(fragile: Installation) -> None:
    accepted = DWELLING["build"].submit(fragile)
    wait_for_phase(fragile, accepted, "build")

    for horse in horses(fragile):
        horse.kill()

    assert_recovered(fragile, accepted)


def test_kill_9_of_the_worker_alone_hands_the_build_back(fragile: Installation) -> None:
    accepted = DWELLING["installation"].submit(fragile)
    wait_for_phase(fragile, accepted, "installation")

    for horse in horses(fragile):
        worker = horse.parent()
        assert worker
        worker.kill()

    assert_recovered(fragile, accepted)


def test_flushall_with_builds_queued_and_running(fragile: Installation) -> None:
    builds = [DWELLING["build"].submit(fragile) for _ in range(4)]
    wait_for_phase(fragile, builds[0], "build")

    redis.Redis(port=fragile.redis_port).flushall()

    for accepted in builds:
        assert_recovered(fragile, accepted, attempts=1)


def test_redis_is_down_when_a_build_is_submitted(fragile: Installation) -> None:
    fragile.end("redis")

    accepted = DWELLING["build"].submit(fragile)
    time.sleep(1.5)
    assert fragile.status(accepted)["status"] == "queued"
    fragile.start_redis()

    assert_recovered(fragile, accepted, attempts=1)


def test_a_stopped_process_that_wakes_up_late_writes_nothing(fragile: Installation) -> None:
    accepted = DWELLING["build"].submit(fragile)
    wait_for_phase(fragile, accepted, "build")
    until(lambda: fragile.containers(accepted["jobId"], running=True), seconds=10, what="its container runs")
    time.sleep(0.5)  # past its last write: SQLite has one lock for all, and a stopped holder keeps it
    [horse] = horses(fragile)

    os.kill(horse.pid, signal.SIGSTOP)
    until(lambda: fragile.status(accepted)["attempt"] == 2, seconds=30, what="another worker takes the build")
    os.kill(horse.pid, signal.SIGCONT)

    assert_recovered(fragile, accepted)
    until(lambda: not psutil.pid_exists(horse.pid), seconds=20, what="the late process leaves")


def test_workers_told_to_stop_hand_back_what_they_cannot_finish(fragile: Installation) -> None:
    accepted = Slow(install_seconds=5).submit(fragile)
    wait_for_phase(fragile, accepted, "installation")

    assert fragile.end("workers") == 0
    assert fragile.status(accepted)["status"] == "queued"
    assert fragile.containers(running=True) == []
    fragile.start_workers()

    assert_recovered(fragile, accepted)
