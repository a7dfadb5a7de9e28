"""Clients that repeat requests over real HTTP, and processes that die in between: one build, one answer."""

import json
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.installation import Installation, until

pytestmark = [pytest.mark.waits, pytest.mark.redis]

BODY = {"files": {"index.html": "<h1>hi</h1>"}}


def post(chef: Installation, key: str, name: str, *, token: str | None = None) -> httpx.Response:
    with chef.client(token) as client:
        return client.post("/v1/projects", json={"name": name, **BODY}, headers={"Idempotency-Key": key})


def send_and_disconnect(chef: Installation, key: str, name: str, *, after: float = 0) -> None:
    """Send the whole request, and close the socket without reading the answer."""
    body = json.dumps({"name": name, **BODY}).encode()
    head = (
        f"POST /v1/projects HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {chef.token}\r\n"
        f"Content-Type: application/json\r\nIdempotency-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", chef.port), timeout=5) as wire:
        wire.sendall(head.encode() + body)
        time.sleep(after)


def repeat(chef: Installation, key: str, name: str) -> httpx.Response:
    def settled() -> httpx.Response | None:
        answer = post(chef, key, name)
        return None if answer.status_code == 409 else answer

    return until(settled, seconds=20, what="the first request is over")


def builds_of(chef: Installation, name: str) -> int:
    query = "SELECT count(*) FROM builds_build b JOIN projects_project p ON p.id = b.project_id WHERE p.name = '{}'"
    return int(chef.rows(query.format(name))[0][0])


def test_fifty_parallel_posts_with_one_key_make_one_build(chef: Installation) -> None:
    key = name = uuid.uuid4().hex

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: post(chef, key, name), range(50)))

    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert builds_of(chef, name) == 1


def test_a_client_that_disconnected_gets_its_answer_by_repeating(chef: Installation) -> None:
    key = name = uuid.uuid4().hex
    send_and_disconnect(chef, key, name, after=1)
    until(lambda: builds_of(chef, name), seconds=10, what="the first request is done")

    answers = [repeat(chef, key, name) for _ in range(2)]

    assert [answer.headers["Idempotency-Replayed"] for answer in answers] == ["true", "true"]
    assert answers[0].status_code == 201
    assert answers[0].content == answers[1].content
    assert builds_of(chef, name) == 1


# A socket closed at once may end the request before its handler starts; either way there is one build.
@pytest.mark.parametrize("after", [0, 0.005, 0.02])
def test_a_client_that_disconnected_at_once_makes_one_build_by_repeating(chef: Installation, after: float) -> None:
    key = name = uuid.uuid4().hex
    send_and_disconnect(chef, key, name, after=after)

    answers = [repeat(chef, key, name) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].content == answers[1].content
    assert builds_of(chef, name) == 1


def test_another_owner_may_use_the_same_key(chef: Installation) -> None:
    key = name = uuid.uuid4().hex
    stranger = chef.make_token(f"stranger-{name[:8]}")

    mine, theirs = post(chef, key, name), post(chef, key, name, token=stranger)

    assert "Idempotency-Replayed" not in theirs.headers
    assert mine.json()["jobId"] != theirs.json()["jobId"]


@pytest.fixture(scope="module")
def killable(short_folder: Path) -> Iterator[Installation]:
    """An installation whose web process is killed; without workers, so accepted builds stay queued."""
    folder = short_folder / "killable"
    folder.mkdir()
    installation = Installation(folder, CHEF_IDEMPOTENCY_LOCK_SECONDS="2")
    try:
        yield installation.start_without_workers()
    finally:
        installation.stop()


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.06])
def test_a_web_process_killed_during_a_request_makes_no_second_build(killable: Installation, delay: float) -> None:
    key = name = uuid.uuid4().hex
    post(killable, uuid.uuid4().hex, "warm")
    send_and_disconnect(killable, key, name)
    time.sleep(delay)
    web = killable.processes.pop("web")
    web.send_signal(signal.SIGKILL)
    web.wait(10)
    killable.start_web()

    answer = repeat(killable, key, name)

    assert answer.status_code == 201
    assert repeat(killable, key, name).content == answer.content
    assert builds_of(killable, name) == 1
