"""Real faults during real builds: each build is retried automatically, ends once, and leaves nothing behind."""

import os
import signal
import time

import psutil
import pytest
import redis

from tests.e2e.recovery import assert_recovered, work_horses
from tests.e2e.slow_builds import SLOW_IN, Slow, wait_for_phase
from tests.installation import Installation, until

pytestmark = pytest.mark.waits


def test_kill_9_of_the_build_s_process_alone(fragile: Installation) -> None:
    accepted = SLOW_IN["build"].submit(fragile)
    wait_for_phase(fragile, accepted, "build")

    for horse in work_horses(fragile):
        horse.kill()

    assert_recovered(fragile, accepted)


def test_kill_9_of_the_worker_alone_hands_the_build_back(fragile: Installation) -> None:
    accepted = SLOW_IN["installation"].submit(fragile)
    wait_for_phase(fragile, accepted, "installation")

    for horse in work_horses(fragile):
        worker = horse.parent()
        assert worker
        worker.kill()

    assert_recovered(fragile, accepted)


def test_flushall_with_builds_queued_and_running(fragile: Installation) -> None:
    builds = [SLOW_IN["build"].submit(fragile) for _ in range(4)]
    wait_for_phase(fragile, builds[0], "build")

    redis.Redis(port=fragile.redis_port).flushall()

    for accepted in builds:
        assert_recovered(fragile, accepted, attempts=1)


def test_redis_is_down_when_a_build_is_submitted(fragile: Installation) -> None:
    fragile.end("redis")

    accepted = SLOW_IN["build"].submit(fragile)
    time.sleep(1.5)
    assert fragile.status(accepted)["status"] == "queued"
    fragile.start_redis()

    assert_recovered(fragile, accepted, attempts=1)


def test_a_stopped_process_that_resumes_late_writes_nothing(fragile: Installation) -> None:
    accepted = SLOW_IN["build"].submit(fragile)
    wait_for_phase(fragile, accepted, "build")
    until(lambda: fragile.containers(accepted["jobId"], running=True), seconds=10, what="its container runs")
    time.sleep(0.5)  # after its last write: SQLite has a single lock, which a stopped process would keep
    [horse] = work_horses(fragile)

    os.kill(horse.pid, signal.SIGSTOP)
    until(lambda: fragile.status(accepted)["attempt"] == 2, seconds=30, what="another worker takes the build")
    os.kill(horse.pid, signal.SIGCONT)

    assert_recovered(fragile, accepted)
    until(lambda: not psutil.pid_exists(horse.pid), seconds=20, what="the late process exits")


def test_terminating_workers_hand_back_unfinished_builds(fragile: Installation) -> None:
    accepted = Slow(install_seconds=5).submit(fragile)
    wait_for_phase(fragile, accepted, "installation")

    assert fragile.end("workers") == 0
    assert fragile.status(accepted)["status"] == "queued"
    assert fragile.containers(running=True) == []
    fragile.start_workers()

    assert_recovered(fragile, accepted)
