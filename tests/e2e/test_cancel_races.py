"""Cancels that race with a build's end: each build ends exactly once."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.cancelling import LEFT_SECONDS, TRIVIAL, Accepted, assert_nothing_left, cancel, submit
from tests.e2e.slow_builds import matches, terminal_events
from tests.installation import Installation, until

pytestmark = pytest.mark.waits


def test_cancels_at_random_moments_leave_every_build_with_one_end(chef: Installation) -> None:
    chance = random.Random(1)
    moments = [*(chance.uniform(0, 9) for _ in range(25)), None, None]

    def race(moment: float | None) -> tuple[Accepted, httpx.Response]:
        accepted = submit(chef, TRIVIAL)
        if moment is None:
            chef.wait(accepted)  # on a slow machine, all the other cancels may come before the end
        else:
            time.sleep(moment)
        return accepted, cancel(chef, accepted)

    with ThreadPoolExecutor(len(moments)) as pool:
        answered = list(pool.map(race, moments))

    ends = assert_one_end_each(chef, answered)
    assert set(ends) == {"completed", "cancelled"}


def test_cancels_in_the_last_moments_leave_every_build_with_one_end(chef: Installation) -> None:
    def race(number: int) -> tuple[Accepted, httpx.Response]:
        accepted = submit(chef, TRIVIAL)
        nearly_over = f"SELECT count(*) FROM builds_build WHERE progress >= 90 AND {matches('id', accepted)}"
        until(lambda: chef.rows(nearly_over) == [(1,)], seconds=30, what="the build is nearly over", every=0.01)
        time.sleep(0.03 * (number % 8))
        return accepted, cancel(chef, accepted)

    with ThreadPoolExecutor(4) as pool:
        answered = list(pool.map(race, range(16)))

    assert_one_end_each(chef, answered)


def assert_one_end_each(chef: Installation, answered: list[tuple[Accepted, httpx.Response]]) -> list[str]:
    """Assert that each build ended once, as its answer said, and that nothing is left over. Returns the statuses."""
    ends = []
    for accepted, answer in answered:
        document = chef.wait(accepted)
        ends.append(document["status"])
        assert (answer.status_code, answer.json()["status"]) in {(202, "cancelled"), (200, "completed")}
        assert document == answer.json()
        assert terminal_events(chef, accepted) == [document["status"]]
        listing = chef.get(f"/v1/projects/{accepted['projectId']}/artifacts")["artifacts"]
        assert len(listing) == (document["status"] == "completed")
    assert_nothing_left(chef, *(each for (each, _), end in zip(answered, ends, strict=True) if end == "cancelled"))
    until(lambda: not chef.containers(), seconds=LEFT_SECONDS, what="no container is left")
    until(lambda: not chef.leftovers(), seconds=LEFT_SECONDS, what="nothing is left")
    return ends
