"""Time, memory and processes: a build over a limit ends with the matching verdict, and leaves nothing behind."""

from datetime import datetime
from typing import Any

import pytest

from tests.installation import Installation, until

pytestmark = pytest.mark.once("postgresql")

FORK_BOMB = (
    'node -e \'const {spawn} = require("child_process"); for (;;) spawn("sleep", ["60"]).on("error", () => {})\''
)
HOG = "node -e 'const hoard = []; for (;;) hoard.push(Buffer.alloc(1 << 24, 1))'"
CHILD_HOG = f"{HOG} || true; mkdir -p dist && echo ok > dist/index.html"
STUBBORN = "trap '' TERM INT; (setsid sleep 600 &) ; while :; do :; done"

CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "spins for ever": ("while :; do :; done", {"timeout": 4000}, "timeout"),
    "ignores signals and daemonises": (STUBBORN, {"timeout": 4000}, "timeout"),
    "hoards memory": (HOG, {"memory": "128m"}, "out_of_memory"),
    "loses a child to the memory limit": (CHILD_HOG, {"memory": "128m"}, "out_of_memory"),
    "forks for ever": (f"{FORK_BOMB} & while :; do sleep 1; done", {"timeout": 20000}, "process_limit"),
    "exits like a killed process": ("exit 137", {}, "build_failed"),
}


@pytest.fixture(scope="module")
def documents(chef: Installation) -> dict[str, dict[str, Any]]:
    """Run all of them in parallel, until each has ended."""
    accepted = {
        name: chef.submit(
            {"index.js": ""}, strategy={"runtime": "node", "buildCommand": command, "outputs": ["dist"], **limits}
        )
        for name, (command, limits, _) in CASES.items()
    }
    return {name: chef.wait(each, seconds=120) for name, each in accepted.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_build_over_a_limit_ends_with_the_expected_verdict(name: str, documents: dict[str, dict[str, Any]]) -> None:
    document = documents[name]

    assert document["status"] == "failed"
    assert (document["verdict"]["code"], document["verdict"]["phase"]) == (CASES[name][2], "build")
    assert document["attempt"] == 1  # failures of the user's code are final
    assert document["verdict"]["hint"]


def test_a_command_s_own_exit_code_is_reported(documents: dict[str, dict[str, Any]]) -> None:
    assert documents["exits like a killed process"]["verdict"]["exitCode"] == 137


@pytest.mark.parametrize("name", ["spins for ever", "ignores signals and daemonises"])
def test_the_time_limit_is_exact_within_two_seconds(name: str, documents: dict[str, dict[str, Any]]) -> None:
    started, finished = (datetime.fromisoformat(documents[name][key]) for key in ("startedAt", "finishedAt"))

    assert 4 <= (finished - started).total_seconds() <= 6


def test_builds_over_a_limit_leave_nothing(chef: Installation, documents: dict[str, dict[str, Any]]) -> None:
    until(lambda: not chef.leftovers(), seconds=10, what=f"nothing is left: {chef.leftovers()}")
