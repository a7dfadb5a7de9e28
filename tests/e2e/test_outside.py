"""Builders outside of a running installation: the example's, and messages of our own, over real HTTP."""

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

BUILDER = ROOT / "examples" / "outside-builder" / "builder.py"
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
    """The example, which ends when nothing waits any more."""
    environment = {**os.environ, "CHEF_URL": outer.url, "CHEF_WORKER_SECRET": SECRET, "NO_PROXY": "127.0.0.1"}
    argv = [sys.executable, str(BUILDER), "--once", *command]
    return subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def said(process: subprocess.Popen[str], *, seconds: float = 60) -> str:
    with process:
        output = process.communicate(timeout=seconds)[0]
    assert process.returncode == 0, output
    return output


def send(outer: Installation, door: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
    with outer.client() as client:
        headers = {"Content-Type": "application/json", **headers}
        return client.post(f"/v1/hooks/worker-{door}", content=body, headers=headers)


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


def test_the_example_builds_what_waits_for_others_while_local_builds_go_on(outer: Installation) -> None:
    external = outer.submit(PAGE, queue="external", env={"MODE": "production"})
    local = [outer.submit({"index.html": "<h1>hi</h1>"}) for _ in range(2)]

    # The only worker has passed the older build by.
    assert {outer.wait(build)["status"] for build in local} == {"completed"}
    assert outer.status(external)["status"] == "queued"
    assert outer.status(external)["queue"] == {"position": 1, "etaSeconds": None, "blockedBy": None}
    told = said(builder(outer, "sh", "build.sh"))

    build = outer.status(external)
    assert told.split() == [external["jobId"], "completed"]
    assert (build["status"], build["external"], build["attempt"]) == ("completed", True, 1)
    assert outer.log_text(external) == "built in production\n"
    with outer.client() as client:
        [artifact] = client.get(f"/v1/projects/{external['projectId']}/artifacts").json()["artifacts"]
        assert (artifact["name"], client.get(artifact["url"]).text) == ("dist/index.html", PAGE["index.html"])
    assert outer.containers(external["jobId"]) == []


def test_a_command_that_fails_is_told_with_the_end_of_its_output(outer: Installation) -> None:
    external = outer.submit(PAGE, queue="external")

    told = said(builder(outer, "sh", "-c", "echo one; echo two >&2; exit 3"))

    build = outer.status(external)
    assert told.split() == [external["jobId"], "failed"]
    assert (build["verdict"]["code"], build["verdict"]["exitCode"]) == ("build_failed", 3)
    assert build["verdict"]["evidence"] == ["one", "two"]
    assert outer.log_text(external) == "one\ntwo\n"


def test_a_builder_that_speaks_keeps_its_build_for_longer_than_a_lease(outer: Installation) -> None:
    external = outer.submit(PAGE, queue="external")

    told = said(builder(outer, "sh", "-c", f"sleep {2 * LEASE_SECONDS + 2}; sh build.sh"))

    assert told.split() == [external["jobId"], "completed"]
    assert attempts(outer, external) == ["completed"]


def test_a_builder_that_falls_silent_loses_its_build_to_the_next(outer: Installation) -> None:
    external = outer.submit(PAGE, queue="external")
    silent = claimed(outer)

    until(lambda: outer.status(external)["status"] == "queued", seconds=30, what="the lease is reaped")
    body = result(silent)
    late = send(outer, "result", body, signed(body))
    until(lambda: said(builder(outer, "sh", "build.sh")), seconds=60, what="another has built it", every=1)

    assert (late.status_code, late.json()["errors"][0]["code"]) == (409, "stale_fence")
    assert outer.status(external)["status"] == "completed"
    assert attempts(outer, external) == ["worker_lost", "completed"]


def test_a_builder_hears_of_a_cancel(outer: Installation) -> None:
    external = outer.submit(PAGE, queue="external")
    process = builder(outer, "sleep", "300")
    until(lambda: outer.status(external)["status"] == "running", seconds=30, what="it is taken")

    with outer.client() as client:
        assert client.post(f"/v1/builds/{external['jobId']}/cancel").status_code == 202
    told = said(process)

    assert "dropped" in told
    assert "build_ended" in told
    assert outer.status(external)["status"] == "cancelled"


@pytest.mark.parametrize("is_one_message", [True, False])
def test_twenty_reports_at_once_make_one_change(outer: Installation, is_one_message: bool) -> None:
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
def mortal(short_folder: Path) -> Iterator[Installation]:
    """One whose web process is killed."""
    folder = short_folder / "mortal-outside"
    folder.mkdir()
    installation = Installation(folder, CHEF_WORKER_SECRET=SECRET, CHEF_IDEMPOTENCY_LOCK_SECONDS="2")
    try:
        yield installation.start_without_workers()
    finally:
        installation.stop()


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.15, 0.4])
def test_a_web_process_killed_while_it_takes_a_report_makes_no_half_of_one(mortal: Installation, delay: float) -> None:
    external = mortal.submit(PAGE, queue="external")
    taken = claimed(mortal)
    files = [{"name": f"{number}.txt", "content": "x" * 10_000} for number in range(300)]
    body = result(taken, artifacts=files)
    headers = signed(body)

    with ThreadPoolExecutor(1) as pool:
        cut = pool.submit(send, mortal, "result", body, headers)
        time.sleep(delay)
        web = mortal.processes.pop("web")
        web.send_signal(signal.SIGKILL)
        web.wait(10)
        with contextlib.suppress(httpx.TransportError):
            cut.result(timeout=30)
    mortal.start_web()
    answers = [send(mortal, "result", body, headers) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    assert answers[0].content == answers[1].content
    assert mortal.status(external)["status"] == "completed"
    assert mortal.log_text(external) == "built\n"
    listed = mortal.get(f"/v1/projects/{external['projectId']}/artifacts")
    assert (len(listed["artifacts"]), listed["totalSize"]) == (300, 3_000_000)
    assert len(list((mortal.folder / "artifacts" / external["jobId"] / "1").iterdir())) == 300


def test_a_wrong_secret_stops_the_process_with_what_to_write(outer: Installation) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT,
        env={**outer.environment, "CHEF_WORKER_SECRET": "whsec_short"},
        capture_output=True,
        text=True,
    )

    assert done.returncode != 0
    assert "CHEF_WORKER_SECRET: a secret is whsec_ and 24 to 64 random bytes in base64" in done.stderr
