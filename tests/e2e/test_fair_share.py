"""Fair share on a crowded installation, over real HTTP: queue positions, priorities, and refusals of a full queue."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.slow_builds import wait_for_phase
from tests.installation import Installation, until

pytestmark = [pytest.mark.waits, pytest.mark.docker, pytest.mark.redis]

WORKERS, OWNER_MAX_QUEUED, MAX_QUEUED = 2, 300, 303
# Longer than any test here: tests free workers by cancelling builds.
BODY = {"files": {"README.txt": "x"}, "strategy": {"runtime": "static", "buildCommand": "sleep 300"}}


@dataclass
class Crowd:
    """Every worker runs a build of one owner, whose queue is full; `other` has no builds yet."""

    chef: Installation
    project: str
    refused: list[httpx.Response]
    other: str  # a token

    def submit(self, token: str, **body: Any) -> httpx.Response:
        with self.chef.client(token) as client:
            return client.post("/v1/projects", json={**BODY, **body})

    def rebuild(self, priority: str = "normal") -> httpx.Response:
        with self.chef.client() as client:
            return client.post(f"/v1/projects/{self.project}/builds", json={"priority": priority})

    def build(self, token: str, answer: httpx.Response) -> dict[str, Any]:
        with self.chef.client(token) as client:
            return dict(client.get(f"/v1/builds/{answer.json()['jobId']}").json())

    def until_placed(self, token: str, answer: httpx.Response, position: int) -> None:
        # The position may be a second old.
        def is_placed() -> bool:
            return bool(self.build(token, answer)["queue"]["position"] == position)

        until(is_placed, seconds=5, what=f"the build is at position {position}")

    def free_a_worker(self) -> None:
        """Cancel the build that has been running longest."""
        with self.chef.client() as client:
            *_, oldest = client.get("/v1/builds?status=running").json()["results"]
            assert client.post(f"/v1/builds/{oldest['jobId']}/cancel").status_code == 202

    def make_room(self, count: int) -> None:
        """Cancel `count` of the owner's queued builds."""
        with self.chef.client() as client:
            for queued in client.get(f"/v1/builds?status=queued&limit={count}").json()["results"]:
                assert client.post(f"/v1/builds/{queued['jobId']}/cancel").status_code == 202

    def running(self) -> int:
        return int(self.chef.rows("SELECT count(*) FROM builds_build WHERE status = 'running'")[0][0])

    def started(self) -> int:
        """How many of the owner's builds have ever started."""
        [(count,)] = self.chef.rows(
            "SELECT count(*) FROM builds_build b JOIN auth_user u ON u.id = b.owner_id"
            " WHERE b.started_at IS NOT NULL AND u.username = 'tester'"
        )
        return int(count)

    @contextlib.contextmanager
    def cancelled_at_the_end(self, token: str, *answers: httpx.Response) -> Iterator[None]:
        try:
            yield
        finally:
            with self.chef.client(token) as client:
                for answer in answers:
                    client.post(f"/v1/builds/{answer.json()['jobId']}/cancel")


@pytest.fixture(scope="module")
def filled(short_folder: Path) -> Iterator[Crowd]:
    folder = short_folder / "crowd"
    folder.mkdir()
    limits = {
        "CHEF_OWNER_MAX_QUEUED": str(OWNER_MAX_QUEUED),
        "CHEF_MAX_QUEUED": str(MAX_QUEUED),
        "CHEF_RATE_WRITE": "0",
    }
    installation = Installation(folder, WORKER_CONCURRENCY=str(WORKERS), **limits)
    try:
        crowd = fill(installation.start())
        yield crowd
        with installation.client() as client:
            # Cancels and deletes the remaining builds.
            assert client.delete(f"/v1/projects/{crowd.project}").status_code == 204
        until(lambda: not installation.containers(), seconds=10, what="no container is left")
    finally:
        installation.stop()


@pytest.fixture
def crowd(filled: Crowd) -> Crowd:
    """Waits until workers freed by the previous test have found another build."""
    until(lambda: filled.running() == WORKERS, seconds=15, what="all workers are busy")
    return filled


def fill(chef: Installation) -> Crowd:
    first = chef.submit(BODY["files"], strategy=BODY["strategy"])
    crowd = Crowd(chef, first["projectId"], [], chef.make_token("other"))
    second = crowd.rebuild().json()
    for accepted in (first, second):
        wait_for_phase(chef, accepted, "build")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: crowd.rebuild(), range(OWNER_MAX_QUEUED + 4)))
    crowd.refused = [answer for answer in answers if answer.status_code != 201]
    return crowd


def test_an_owner_s_full_queue_answers_429_with_retry_after(crowd: Crowd) -> None:
    assert [answer.status_code for answer in crowd.refused] == [429] * 4
    for answer in crowd.refused:
        assert answer.json()["errors"][0]["code"] == "owner_queue_full"
        assert 1 <= int(answer.headers["Retry-After"]) <= 300
        assert "cancel builds that you no longer need" in answer.json()["errors"][0]["detail"]


def test_a_full_queue_answers_503_and_stores_nothing(crowd: Crowd) -> None:
    kept = []
    while (refused := crowd.submit(crowd.other, name="theirs")).status_code == 201:
        kept.append(refused)

    with crowd.cancelled_at_the_end(crowd.other, *kept):
        assert len(kept) >= MAX_QUEUED - OWNER_MAX_QUEUED
        assert (refused.status_code, refused.json()["errors"][0]["code"]) == (503, "queue_full")
        assert 1 <= int(refused.headers["Retry-After"]) <= 300
        assert crowd.chef.rows("SELECT count(*) FROM projects_project WHERE name = 'theirs'") == [(len(kept),)]


def test_another_owner_s_first_build_is_next_despite_300_queued_ones(crowd: Crowd) -> None:
    before = crowd.started()

    answer = crowd.submit(crowd.other)

    with crowd.cancelled_at_the_end(crowd.other, answer):
        crowd.until_placed(crowd.other, answer, 1)
        assert crowd.build(crowd.other, answer)["queue"]["blockedBy"] == "all_workers_busy"
        crowd.free_a_worker()
        until(lambda: crowd.build(crowd.other, answer)["status"] == "running", seconds=10, what="it is next")
        assert crowd.started() == before


def test_high_priority_goes_before_normal(crowd: Crowd) -> None:
    crowd.make_room(1)
    normal, high = crowd.submit(crowd.other), crowd.rebuild("high")

    with crowd.cancelled_at_the_end(crowd.other, normal):
        crowd.until_placed(crowd.chef.token, high, 1)
        crowd.until_placed(crowd.other, normal, 2)
        crowd.free_a_worker()
        until(lambda: crowd.build(crowd.chef.token, high)["status"] == "running", seconds=10, what="high is next")
        assert crowd.build(crowd.other, normal)["status"] == "queued"
