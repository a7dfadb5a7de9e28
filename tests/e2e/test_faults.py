"""Real faults under real builds: each is tried again by itself, ends once, and leaves nothing behind."""

import os
import signal
import time

import psutil
import pytest
import redis

from tests.e2e.dwelling import DWELLING, Slow, wait_for_phase
from tests.e2e.recovery import assert_recovered, horses
from tests.installation import Installation, until

pytestmark = pytest.mark.waits


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
