"""Cancelling over real HTTP at any moment of a build: immediate answer, container removed in time, nothing left."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.cancelling import TRIVIAL, Accepted, assert_nothing_left, cancel, submit
from tests.e2e.slow_builds import Slow, terminal_events, wait_for_phase
from tests.installation import Installation, until

pytestmark = [pytest.mark.once, pytest.mark.waits]

GONE_SECONDS = 3.0
WORKERS = 5
# It ignores all signals that can be ignored, and half of it has left its session and parent.
STUBBORN = """
trap '' TERM INT HUP
setsid sh -c 'trap "" TERM INT HUP; (while :; do sleep 1; done) & while :; do sleep 1; done' &
echo ready
while :; do sleep 1; done
"""


def assert_gone_in_time(chef: Installation, accepted: Accepted) -> None:
    """Call it right after the answer to the cancel."""
    until(lambda: not chef.containers(accepted["jobId"]), seconds=GONE_SECONDS, what="its containers are gone")


def assert_cancelled(chef: Installation, accepted: Accepted, answer: httpx.Response) -> None:
    """Assert that the answer is a cancelled build, and that it stays as answered."""
    build = answer.json()
    assert (answer.status_code, build["status"]) == (202, "cancelled")
    assert (build["verdict"]["class"], build["verdict"]["code"]) == ("cancelled", "cancelled")
    assert build["finishedAt"]
    assert chef.status(accepted) == build
    assert terminal_events(chef, accepted) == ["cancelled"]


# --- In every state and phase --------------------------------------------------------------------------------------


def test_a_queued_build_is_cancelled_at_once_and_never_starts(chef: Installation) -> None:
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


SLOW_CASES: dict[str, tuple[str, Callable[[Installation], Accepted]]] = {
    "preparation": ("preparation", Slow(files=1000).submit),
    "installation": ("installation", Slow(install_seconds=60).submit),
    "build": ("build", Slow(build_seconds=60).submit),
    "artifacts, many": ("artifacts", Slow(outputs=6000).submit),
    "artifacts, one large": ("artifacts", lambda chef: submit(chef, "mkdir dist; head -c 500m /dev/zero > dist/zero")),
    "cleanup": ("cleanup", Slow(junk=4000).submit),
}


@pytest.mark.parametrize("case", SLOW_CASES)
def test_a_running_build_s_container_is_gone_within_three_seconds_in_any_phase(chef: Installation, case: str) -> None:
    phase, submit_slow = SLOW_CASES[case]
    accepted = submit_slow(chef)
    wait_for_phase(chef, accepted, phase)

    answer = cancel(chef, accepted)

    assert_gone_in_time(chef, accepted)
    assert_nothing_left(chef, accepted)
    assert_cancelled(chef, accepted, answer)
    last = answer.json()["phases"][-1]
    assert (last["name"], last["status"]) == (phase, "interrupted")
    assert answer.json()["verdict"]["phase"] == phase


def test_daemons_that_ignore_signals_are_gone_as_well(chef: Installation) -> None:
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


def test_of_two_concurrent_cancels_exactly_one_takes_effect(chef: Installation) -> None:
    accepted = submit(chef, "sleep 60")
    wait_for_phase(chef, accepted, "build")

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: cancel(chef, accepted), range(4)))

    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 202]
    assert terminal_events(chef, accepted) == ["cancelled"]


def test_other_users_and_read_tokens_cannot_cancel(chef: Installation) -> None:
    accepted = submit(chef, "sleep 3; " + TRIVIAL)
    stranger, reader = chef.make_token("stranger"), chef.make_token("tester", scope="read")

    answers = [cancel(chef, accepted, token=token) for token in (stranger, reader)]

    assert [answer.status_code for answer in answers] == [404, 403]
    assert chef.wait(accepted)["status"] == "completed"
