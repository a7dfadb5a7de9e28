"""Helpers to cancel builds and to check that nothing is left of them."""

from typing import Any

import httpx

from tests.installation import Installation, until

# For unused volumes: the engine is slow to remove a volume with many files.
LEFT_SECONDS = 20.0
TRIVIAL = "mkdir dist && echo hi > dist/index.html"

Accepted = dict[str, Any]


def submit(chef: Installation, script: str, **strategy: Any) -> Accepted:
    strategy = {"runtime": "static", "buildCommand": script, "outputs": ["dist"], **strategy}
    return chef.submit({"README.txt": "x"}, strategy=strategy)


def cancel(chef: Installation, accepted: Accepted, *, token: str | None = None) -> httpx.Response:
    with chef.client(token) as client:
        return client.post(f"/v1/builds/{accepted['jobId']}/cancel")


def assert_nothing_left(chef: Installation, *builds: Accepted) -> None:
    """Assert that no container, volume or network is on the engine, and no file in the store."""
    jobs = [accepted["jobId"] for accepted in builds]

    def left() -> list[str]:
        stored = [str(file) for job in jobs for file in (chef.folder / "artifacts").glob(f"{job}/*/*")]
        return stored + [name for name in chef.leftovers() if any(job in name for job in jobs)]

    until(lambda: not left(), seconds=LEFT_SECONDS, what=f"nothing is left of {jobs}")
    assert not [container for job in jobs for container in chef.containers(job)]
