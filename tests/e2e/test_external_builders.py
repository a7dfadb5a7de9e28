"""External builders of a running installation: the example, and our own messages, over real HTTP."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.builds.signing import SECRET, signed
from tests.installation import ROOT, Installation, until

pytestmark = [pytest.mark.once, pytest.mark.waits, pytest.mark.docker, pytest.mark.redis]

BUILDER = ROOT / "examples" / "external-builder" / "builder.py"
PAGE = {"index.html": "<h1>hi</h1>", "build.sh": "mkdir dist\ncp index.html dist\necho built in $MODE\n"}
LEASE_SECONDS = 5


@pytest.fixture(scope="module")
def outer(short_folder: Path) -> Iterator[Installation]:
    folder = short_folder / "outer"
    folder.mkdir()
    settings = {"CHEF_WORKER_SECRET": SECRET, "CHEF_OUTSIDE_LEASE_SECONDS": str(LEASE_SECONDS)}
    installation = Installation(folder, WORKER_CONCURRENCY="1", **settings)
    try:
        yield installation.start()
    finally:
        installation.stop()


def builder(outer: Installation, *command: str) -> subprocess.Popen[str]:
    """The example builder; it exits when no build is waiting."""
    environment = {**os.environ, "CHEF_URL": outer.url, "CHEF_WORKER_SECRET": SECRET, "NO_PROXY": "127.0.0.1"}
    argv = [sys.executable, str(BUILDER), "--once", *command]
    return subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def output_of(process: subprocess.Popen[str], *, seconds: float = 60) -> str:
    with process:
        output = process.communicate(timeout=seconds)[0]
    assert process.returncode == 0, output
    return output


def send(outer: Installation, operation: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
    with outer.client() as client:
        headers = {"Content-Type": "application/json", **headers}
        return client.post(f"/v1/hooks/worker-{operation}", content=body, headers=headers)


def claimed(outer: Installation) -> dict[str, Any]:
    answer = send(outer, "claim", b"{}", signed(b"{}"))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def result(taken: dict[str, Any], **more: Any) -> bytes:
    report = {"jobId": taken["jobId"], "fence": taken["fence"], "status": "completed", "logs": "built\n", **more}
    return json.dumps(report).encode()


def attempts(outer: Installation, build: dict[str, Any]) -> list[str]:
    job = build["jobId"].replace("-", "")
    query = "SELECT outcome FROM builds_attempt WHERE replace(CAST(build_id AS text), '-', '') = '{}' ORDER BY number"
    return [outcome for (outcome,) in outer.rows(query.format(job))]


def test_the_example_builds_external_builds_while_local_ones_continue(outer: Installation) -> None:
    external = outer.submit(PAGE, queue="external", env={"MODE": "production"})
    local = [outer.submit({"index.html": "<h1>hi</h1>"}) for _ in range(2)]

    # The only worker skipped the older, external build.
    assert {outer.wait(build)["status"] for build in local} == {"completed"}
    assert outer.status(external)["status"] == "queued"
    assert outer.status(external)["queue"] == {"position": 1, "etaSeconds": None, "blockedBy": None}
    printed = output_of(builder(outer, "sh", "build.sh"))

    build = outer.status(external)
    assert printed.split() == [external["jobId"], "completed"]
    assert (build["status"], build["external"], build["attempt"]) == ("completed", True, 1)
    assert outer.log_text(external) == "built in production\n"
    with outer.client() as client:
        [artifact] = client.get(f"/v1/projects/{external['projectId']}/artifacts").json()["artifacts"]
        assert (artifact["name"], client.get(artifact["url"]).text) == ("dist/index.html", PAGE["index.html"])
    assert outer.containers(external["jobId"]) == []


def test_a_failed_command_is_reported_with_the_end_of_its_output(outer: Installation) -> None:
    external = outer.submit(PAGE, queue="external")

    printed = output_of(builder(outer, "sh", "-c", "echo one; echo two >&2; exit 3"))

    build = outer.status(external)
    assert printed.split() == [external["jobId"], "failed"]
    assert (build["verdict"]["code"], build["verdict"]["exitCode"]) == ("build_failed", 3)
    assert build["verdict"]["evidence"] == ["one", "two"]
    assert outer.log_text(external) == "one\ntwo\n"


def test_heartbeats_keep_a_build_for_longer_than_a_lease(outer: Installation) -> None:
    external = outer.submit(PAGE, queue="external")

    printed = output_of(builder(outer, "sh", "-c", f"sleep {2 * LEASE_SECONDS + 2}; sh build.sh"))

    assert printed.split() == [external["jobId"], "completed"]
    assert attempts(outer, external) == ["completed"]


def test_a_silent_builder_loses_its_build_to_the_next(outer: Installation) -> None:
    external = outer.submit(PAGE, queue="external")
    silent = claimed(outer)

    until(lambda: outer.status(external)["status"] == "queued", seconds=30, what="the build is queued again")
    body = result(silent)
    late = send(outer, "result", body, signed(body))
    until(lambda: output_of(builder(outer, "sh", "build.sh")), seconds=60, what="another builder has built it", every=1)

    assert (late.status_code, late.json()["errors"][0]["code"]) == (409, "stale_fence")
    assert outer.status(external)["status"] == "completed"
    assert attempts(outer, external) == ["worker_lost", "completed"]


def test_a_builder_learns_of_a_cancel(outer: Installation) -> None:
    external = outer.submit(PAGE, queue="external")
    process = builder(outer, "sleep", "300")
    until(lambda: outer.status(external)["status"] == "running", seconds=30, what="it is taken")

    with outer.client() as client:
        assert client.post(f"/v1/builds/{external['jobId']}/cancel").status_code == 202
    printed = output_of(process)

    assert "dropped" in printed
    assert "build_ended" in printed
    assert outer.status(external)["status"] == "cancelled"


@pytest.mark.parametrize("is_one_message", [True, False])
def test_twenty_concurrent_results_make_one_change(outer: Installation, is_one_message: bool) -> None:
    external = outer.submit(PAGE, queue="external")
    taken = claimed(outer)
    body = result(taken, artifacts=[{"name": "a.txt", "content": "a"}])
    headers = [signed(body) for _ in range(20)]

    def report(number: int) -> httpx.Response:
        return send(outer, "result", body, headers[0 if is_one_message else number])

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(report, range(20)))

    good = [answer for answer in answers if answer.status_code == 200]
    refused = {(answer.status_code, answer.json()["errors"][0]["code"]) for answer in answers if answer not in good}
    assert len(good) == (20 if is_one_message else 1)
    assert len({answer.content for answer in good}) == 1
    assert refused == (set() if is_one_message else {(409, "build_ended")})
    assert outer.log_text(external) == "built\n"
    assert len(list((outer.folder / "artifacts" / external["jobId"] / "1").iterdir())) == 1
    with outer.client() as client:
        [artifact] = client.get(f"/v1/projects/{external['projectId']}/artifacts").json()["artifacts"]
        assert client.get(artifact["url"]).text == "a"


@pytest.fixture(scope="module")
def killable(short_folder: Path) -> Iterator[Installation]:
    """An installation whose web process is killed."""
    folder = short_folder / "killable-outside"
    folder.mkdir()
    installation = Installation(folder, CHEF_WORKER_SECRET=SECRET, CHEF_IDEMPOTENCY_LOCK_SECONDS="2")
    try:
        yield installation.start_without_workers()
    finally:
        installation.stop()


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.15, 0.4])
def test_a_web_process_killed_during_a_result_stores_all_or_nothing(killable: Installation, delay: float) -> None:
    external = killable.submit(PAGE, queue="external")
    taken = claimed(killable)
    files = [{"name": f"{number}.txt", "content": "x" * 10_000} for number in range(300)]
    body = result(taken, artifacts=files)
    headers = signed(body)

    with ThreadPoolExecutor(1) as pool:
        cut = pool.submit(send, killable, "result", body, headers)
        time.sleep(delay)
        web = killable.processes.pop("web")
        web.send_signal(signal.SIGKILL)
        web.wait(10)
        with contextlib.suppress(httpx.TransportError):
            cut.result(timeout=30)
    killable.start_web()
    answers = [send(killable, "result", body, headers) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    assert answers[0].content == answers[1].content
    assert killable.status(external)["status"] == "completed"
    assert killable.log_text(external) == "built\n"
    listed = killable.get(f"/v1/projects/{external['projectId']}/artifacts")
    assert (len(listed["artifacts"]), listed["totalSize"]) == (300, 3_000_000)
    assert len(list((killable.folder / "artifacts" / external["jobId"] / "1").iterdir())) == 300


def test_an_invalid_secret_stops_the_process_with_a_hint(outer: Installation) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT,
        env={**outer.environment, "CHEF_WORKER_SECRET": "whsec_short"},
        capture_output=True,
        text=True,
    )

    assert done.returncode != 0
    assert "CHEF_WORKER_SECRET: a secret is whsec_ and 24 to 64 random bytes in base64" in done.stderr
