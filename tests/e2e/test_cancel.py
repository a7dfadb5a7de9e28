"""Cancelling over real HTTP, at any moment of a build: told at once, the container gone in time, nothing left."""

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.e2e.dwelling import Slow, same, terminal_events, wait_for_phase
from tests.installation import Installation, until

GONE_SECONDS = 3.0
# For what no process uses any more: the engine takes its time over a volume of many files.
LEFT_SECONDS = 20.0
WORKERS = 5
TRIVIAL = "mkdir dist && echo hi > dist/index.html"
# Nothing in it ends when it is asked to, and half of it has left its session and its parent.
STUBBORN = """
trap '' TERM INT HUP
setsid sh -c 'trap "" TERM INT HUP; (while :; do sleep 1; done) & while :; do sleep 1; done' &
echo ready
while :; do sleep 1; done
"""

Accepted = dict[str, Any]


def submit(chef: Installation, script: str, **strategy: Any) -> Accepted:
    strategy = {"runtime": "static", "buildCommand": script, "outputs": ["dist"], **strategy}
    return chef.submit({"README.txt": "x"}, strategy=strategy)


def cancel(chef: Installation, accepted: Accepted, *, token: str | None = None) -> httpx.Response:
    with chef.client(token) as client:
        return client.post(f"/v1/builds/{accepted['jobId']}/cancel")


def assert_gone_in_time(chef: Installation, accepted: Accepted) -> None:
    """To be called with the cancel's answer in hand."""
    until(lambda: not chef.containers(accepted["jobId"]), seconds=GONE_SECONDS, what="its containers are gone")


def assert_nothing_left(chef: Installation, *builds: Accepted) -> None:
    """No container, volume or network on the engine, and no bytes in the store."""
    jobs = [accepted["jobId"] for accepted in builds]

    def left() -> list[str]:
        stored = [str(file) for job in jobs for file in (chef.folder / "artifacts").glob(f"{job}/*/*")]
        return stored + [name for name in chef.leftovers() if any(job in name for job in jobs)]

    until(lambda: not left(), seconds=LEFT_SECONDS, what=f"nothing is left of {jobs}")
    assert not [container for job in jobs for container in chef.containers(job)]


def assert_cancelled(chef: Installation, accepted: Accepted, answer: httpx.Response) -> None:
    """As the answer said, so it stays."""
    told = answer.json()
    assert (answer.status_code, told["status"]) == (202, "cancelled")
    assert (told["verdict"]["class"], told["verdict"]["code"]) == ("cancelled", "cancelled")
    assert told["finishedAt"]
    assert chef.status(accepted) == told
    assert terminal_events(chef, accepted) == ["cancelled"]


# --- In every state and phase --------------------------------------------------------------------------------------


def test_a_queued_build_is_cancelled_by_the_answer_and_never_starts(chef: Installation) -> None:
    running = [submit(chef, "sleep 60") for _ in range(WORKERS)]
    for accepted in running:
        wait_for_phase(chef, accepted, "build")
    waiting = submit(chef, TRIVIAL)

    answer = cancel(chef, waiting)

    assert_cancelled(chef, waiting, answer)
    assert (answer.json()["startedAt"], answer.json()["attempt"], answer.json()["queue"]) == (None, 0, None)
    answers = [cancel(chef, accepted) for accepted in running]
    for accepted in running:
        assert_gone_in_time(chef, accepted)
    for accepted, answer in zip(running, answers, strict=True):
        assert_cancelled(chef, accepted, answer)
    assert_nothing_left(chef, waiting, *running)
    assert chef.status(waiting)["startedAt"] is None


DWELLING: dict[str, tuple[str, Callable[[Installation], Accepted]]] = {
    "preparation": ("preparation", Slow(files=1000).submit),
    "installation": ("installation", Slow(install_seconds=60).submit),
    "build": ("build", Slow(build_seconds=60).submit),
    "artifacts, many": ("artifacts", Slow(outputs=6000).submit),
    "artifacts, one large": ("artifacts", lambda chef: submit(chef, "mkdir dist; head -c 500m /dev/zero > dist/zero")),
    "cleanup": ("cleanup", Slow(junk=4000).submit),
}


@pytest.mark.parametrize("case", DWELLING)
def test_a_running_build_s_container_is_gone_within_three_seconds_in_any_phase(chef: Installation, case: str) -> None:
    phase, submit_slow = DWELLING[case]
    accepted = submit_slow(chef)
    wait_for_phase(chef, accepted, phase)

    answer = cancel(chef, accepted)

    assert_gone_in_time(chef, accepted)
    assert_nothing_left(chef, accepted)
    assert_cancelled(chef, accepted, answer)
    last = answer.json()["phases"][-1]
    assert (last["name"], last["status"]) == (phase, "interrupted")
    assert answer.json()["verdict"]["phase"] == phase


def test_what_ignores_signals_and_has_daemonised_is_gone_as_well(chef: Installation) -> None:
    accepted = submit(chef, STUBBORN, runtime="node")
    until(lambda: "ready\n" in chef.log_text(accepted), seconds=30, what="it has started")

    answer = cancel(chef, accepted)

    assert_gone_in_time(chef, accepted)
    assert_cancelled(chef, accepted, answer)
    assert_nothing_left(chef, accepted)


# --- Who may, and how often ----------------------------------------------------------------------------------------


def test_cancelling_twice_gives_the_same_object_and_changes_nothing(chef: Installation) -> None:
    accepted = submit(chef, "sleep 60")
    wait_for_phase(chef, accepted, "build")

    first, second = cancel(chef, accepted), cancel(chef, accepted)

    assert_cancelled(chef, accepted, first)
    assert (second.status_code, second.json()) == (200, first.json())
    assert_nothing_left(chef, accepted)


def test_of_two_cancels_at_once_one_has_cancelled_it(chef: Installation) -> None:
    accepted = submit(chef, "sleep 60")
    wait_for_phase(chef, accepted, "build")

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: cancel(chef, accepted), range(4)))

    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 202]
    assert terminal_events(chef, accepted) == ["cancelled"]


def test_neither_a_stranger_nor_a_read_token_cancels(chef: Installation) -> None:
    accepted = submit(chef, "sleep 3; " + TRIVIAL)
    stranger, reader = chef.make_token("stranger"), chef.make_token("tester", scope="read")

    answers = [cancel(chef, accepted, token=token) for token in (stranger, reader)]

    assert [answer.status_code for answer in answers] == [404, 403]
    assert chef.wait(accepted)["status"] == "completed"


# --- Against the end -----------------------------------------------------------------------------------------------


def test_cancels_at_random_moments_leave_every_build_with_one_end(chef: Installation) -> None:
    chance = random.Random(1)
    moments = [*(chance.uniform(0, 9) for _ in range(25)), None, None]

    def race(moment: float | None) -> tuple[Accepted, httpx.Response]:
        accepted = submit(chef, TRIVIAL)
        if moment is None:
            chef.wait(accepted)  # on a slow machine, the others may all come before the end
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
        nearly_over = f"SELECT count(*) FROM builds_build WHERE progress >= 90 AND {same('id', accepted)}"
        until(lambda: chef.rows(nearly_over) == [(1,)], seconds=30, what="it is nearly over", every=0.01)
        time.sleep(0.03 * (number % 8))
        return accepted, cancel(chef, accepted)

    with ThreadPoolExecutor(4) as pool:
        answered = list(pool.map(race, range(16)))

    assert_one_end_each(chef, answered)


def assert_one_end_each(chef: Installation, answered: list[tuple[Accepted, httpx.Response]]) -> list[str]:
    """Each has the one end that its answer told of; what is left of it, and of what was cancelled. Their statuses."""
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
