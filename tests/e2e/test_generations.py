"""Generations in a running installation, with a scripted model over real HTTP: waiting, repeats, killed workers."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis

from tests.installation import Installation, until
from tests.projects.engine.apps import patch, plan, planned, replacement, written
from tests.scripted_model import KEY, NeverEnds, Refuses, Says, ScriptedModel

pytestmark = pytest.mark.once

Json = dict[str, Any]
QUICK = {"enableAnalysis": False, "enableTests": False}
PAGE = "<!doctype html><title>Todo</title><h1>Todo</h1>"
LEASE_SECONDS = 3.0


@pytest.fixture(scope="module")
def _endpoint() -> Iterator[ScriptedModel]:
    with ScriptedModel() as model:
        yield model


@pytest.fixture
def model(_endpoint: ScriptedModel) -> Iterator[ScriptedModel]:
    _endpoint.forget()
    yield _endpoint
    assert not _endpoint.faults
    assert not _endpoint.left()


@pytest.fixture(scope="module")
def chef(short_folder: Path, _endpoint: ScriptedModel) -> Iterator[Installation]:
    """An installation with two generators and no build workers: queued builds stay queued."""
    folder = short_folder / "generations"
    folder.mkdir()
    installation = Installation(
        folder,
        AI_PROVIDER="openai",
        AI_BASE_URL=_endpoint.url,
        AI_API_KEY=KEY,
        AI_TRIES="2",
        GENERATION_CONCURRENCY="2",
        GENERATE_WAIT="20",
        CHEF_LEASE_SECONDS=str(LEASE_SECONDS),
        CHEF_SHUTDOWN_GRACE_SECONDS="1",
        NO_PROXY="127.0.0.1",
    )
    try:
        installation.start_without_workers()
        installation.start_generators()
        installation.start_reaper()
        yield installation
    finally:
        installation.stop()


def static(*files: Json) -> Json:
    return plan(*(files or [planned("index.html")]), runtime="static", dependencies=[], scripts=[])


# The second file is requested after the first is written.
TWO_FILES = static(planned("a.html"), planned("index.html", "a.html"))


def says_page(model: ScriptedModel, *, seconds: float = 0) -> None:
    model.says("plan", Says(static(), seconds=seconds))
    model.says("index.html", written(PAGE))


def post(chef: Installation, prompt: str = "A page", headers: Json | None = None, **body: Any) -> httpx.Response:
    with chef.client() as client:
        return client.post("/v1/generate", json={"prompt": prompt, "config": QUICK, **body}, headers=headers)


def generation_of(chef: Installation, answer: Json) -> Json:
    return dict(chef.get(f"/v1/generations/{answer['generationId']}"))


def ended(chef: Installation, answer: Json, *, seconds: float = 30) -> Json:
    def look() -> Json | None:
        document = generation_of(chef, answer)
        return document if document["status"] not in {"queued", "generating"} else None

    return until(look, seconds=seconds, what="the generation ends")


# --- Waiting -----------------------------------------------------------------------------------------------------


def test_the_answer_waits_for_the_files_and_the_queued_build(chef: Installation, model: ScriptedModel) -> None:
    says_page(model, seconds=1)

    answer = post(chef)

    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert (body["status"], body["filesGenerated"]) == ("queued", 1)
    assert answer.headers["Location"] == body["links"]["build"]
    assert chef.get(f"/v1/builds/{body['jobId']}")["generationId"] == body["generationId"]
    assert "RateLimit" in answer.headers
    with chef.client() as client:
        path = f"/v1/projects/{body['projectId']}/revisions/1/files/index.html"
        assert client.get(path).text == PAGE


@pytest.mark.parametrize("prefer", ["respond-async", "wait=1", "respond-async, wait=5"])
def test_a_client_that_does_not_wait_gets_a_link_to_poll(chef: Installation, model: ScriptedModel, prefer: str) -> None:
    says_page(model, seconds=2)
    began = time.monotonic()

    answer = post(chef, headers={"Prefer": prefer})

    assert time.monotonic() - began < 1.9
    assert answer.status_code == 202, answer.text
    assert (answer.json()["status"], answer.json()["jobId"]) == ("generating", None)
    assert answer.headers["Location"] == answer.json()["links"]["self"]
    assert ended(chef, answer.json())["status"] == "completed"


FAILURES = {
    "a wrong key": (Refuses(401), 502, "endpoint_unauthorized"),
    "a refusal": (Says("", refusal="No."), 502, "model_refused"),
    "a context that is too long": (Refuses(400, "maximum context length", code="x"), 422, "context_too_long"),
}


@pytest.mark.parametrize(("fault", "status", "code"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failure_while_waiting_is_an_error_with_a_link(
    chef: Installation, model: ScriptedModel, fault: Any, status: int, code: str
) -> None:
    model.says("plan", fault)

    answer = post(chef)

    assert answer.status_code == status, answer.text
    [error] = answer.json()["errors"]
    assert error["code"] == code
    with chef.client() as client:
        assert client.get(answer.headers["Location"]).json()["error"]["code"] == code


def test_cancelling_ends_a_waiting_request_with_an_error(chef: Installation, model: ScriptedModel) -> None:
    model.says("plan", NeverEnds(seconds=0.1))
    with ThreadPoolExecutor(1) as pool, chef.client() as client:
        waiting = pool.submit(post, chef)
        until(lambda: model.busy, seconds=10, what="the model gets a request")
        [newest] = client.get("/v1/generations?limit=1").json()["results"]
        assert client.post(f"/v1/generations/{newest['generationId']}/cancel").status_code == 202
        answer = waiting.result(10)
    assert answer.status_code == 409
    assert answer.json()["errors"][0]["code"] == "cancelled"
    until(lambda: not model.busy, seconds=3, what="the request to the model is closed")


def test_a_stopping_web_process_answers_waiting_requests(chef: Installation, model: ScriptedModel) -> None:
    says_page(model, seconds=6)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post, chef)
        until(lambda: model.busy, seconds=10, what="the model gets a request")
        began = time.monotonic()
        chef.end("web")
        assert time.monotonic() - began < 5
        answer = waiting.result(5)
    assert answer.status_code == 202
    chef.start_web()
    assert ended(chef, answer.json())["status"] == "completed"


# --- Sending twice -----------------------------------------------------------------------------------------------


def test_a_repeated_prompt_is_generated_once(chef: Installation, model: ScriptedModel) -> None:
    says_page(model, seconds=1)
    key = {"Idempotency-Key": "todo-1"}
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(post, chef, headers=key)
        until(lambda: model.busy, seconds=10, what="the model gets a request")
        early = post(chef, headers=key)
        late = first.result(30)

    # A repeat in the meantime gets the current state; a later one gets the first request's answer.
    assert (early.status_code, early.headers["Idempotency-Replayed"]) == (202, "true")
    assert late.status_code == 201
    assert early.json()["generationId"] == late.json()["generationId"]
    again = post(chef, headers=key)
    assert (again.status_code, again.json()) == (201, late.json())
    assert post(chef, "Another page", headers=key).status_code == 422


# --- Live --------------------------------------------------------------------------------------------------------


def test_events_are_live_and_resume_without_loss_or_repeat(chef: Installation, model: ScriptedModel) -> None:
    model.says("plan", Says(TWO_FILES, seconds=1))
    model.says("a.html", Says(written(PAGE), seconds=0.5))
    model.says("index.html", Says(written(PAGE), seconds=0.5))
    answer = post(chef, headers={"Prefer": "respond-async"}).json()

    with chef.client() as client, client.stream("GET", answer["links"]["events"]) as stream:
        whole = [line for line in stream.iter_lines() if line]
    with chef.client() as client:
        rest = client.get(answer["links"]["events"], headers={"Last-Event-ID": _ids(whole)[2]}).text

    kinds = [line.removeprefix("event: ") for line in whole if line.startswith("event: ")]
    assert kinds == ["status", "status", "stage", "stage", "file", "file", "status", "end"]
    assert _ids(rest.splitlines()) == _ids(whole)[3:]


def _ids(lines: list[str]) -> list[str]:
    return [line.removeprefix("id: ") for line in lines if line.startswith("id: ")]


def test_a_prompt_changes_a_project_and_gives_a_diff(chef: Installation, model: ScriptedModel) -> None:
    says_page(model)
    made = post(chef).json()
    change = replacement("index.html", "<h1>Todo</h1>", "<h1>Done</h1>")
    model.says("patch", patch(summary="Another heading.", replacements=[change]))

    with chef.client() as client:
        answer = client.post(f"/v1/projects/{made['projectId']}/generate", json={"prompt": "Say Done", "config": QUICK})

    assert answer.status_code == 201, answer.text
    document = generation_of(chef, answer.json())
    assert (document["kind"], document["baseRevision"], document["revision"]) == ("edit", 1, 2)
    assert f"+{PAGE.replace('<h1>Todo', '<h1>Done')}" in document["diff"].splitlines()
    assert document["message"] == answer.json()["message"] == "Another heading."


# --- Faults ------------------------------------------------------------------------------------------------------


def _work_horses(chef: Installation) -> list[psutil.Process]:
    """The processes that run generations (RQ work horses): children of the pool's workers."""
    return [
        horse for worker in psutil.Process(chef.processes["generators"].pid).children() for horse in worker.children()
    ]


@pytest.mark.parametrize("with_worker", [False, True])
def test_kill_9_loses_no_file_and_no_token(chef: Installation, model: ScriptedModel, *, with_worker: bool) -> None:
    model.says(
        "plan",
        Says(TWO_FILES, usage=(300, 40)),
    )
    model.says("a.html", Says(written(PAGE), usage=(70, 11)))
    model.says("index.html", NeverEnds(seconds=0.1), Says(written(PAGE), usage=(80, 13)))
    answer = post(chef, headers={"Prefer": "respond-async"}).json()
    until(lambda: model.asked("index.html"), seconds=15, what="the second file is requested")
    time.sleep(0.5)

    [horse] = _work_horses(chef)
    worker = horse.parent()
    assert worker
    for process in ([worker] if with_worker else []) + [horse]:
        os.kill(process.pid, signal.SIGKILL)

    document = ended(chef, answer)
    assert document["status"] == "completed", document["error"]
    assert (model.asked("plan"), model.asked("a.html"), model.asked("index.html")) == (1, 1, 2)
    # Exactly the tokens that the endpoint reported, and an estimate for the one interrupted request.
    rows = chef.rows(
        "SELECT input_tokens, output_tokens, seconds IS NULL FROM projects_exchange "
        f"WHERE {_is(chef, 'generation_id', answer['generationId'])}"
    )
    reported = [(into, out) for into, out, is_open in rows if not is_open]
    assert sorted(reported) == [(70, 11), (80, 13), (300, 40)]
    [estimate] = [into for into, _, is_open in rows if is_open]
    assert document["tokens"]["total"] == 300 + 40 + 70 + 11 + 80 + 13 + estimate
    assert document["tokens"]["estimated"] is True


def _is(chef: Installation, column: str, value: str) -> str:
    """SQLite stores UUIDs without dashes."""
    kept = value if "postgres" in chef.environment["DATABASE_URL"] else value.replace("-", "")
    return f"{column} = '{kept}'"


def test_stopping_generators_hand_back_to_the_next_ones(chef: Installation, model: ScriptedModel) -> None:
    model.says("plan", static())
    model.says("index.html", NeverEnds(seconds=0.1), written(PAGE))
    answer = post(chef, headers={"Prefer": "respond-async"}).json()
    until(lambda: model.asked("index.html"), seconds=15, what="the file is requested")

    chef.end("generators")
    chef.start_generators()

    document = ended(chef, answer)
    assert document["status"] == "completed"
    assert model.asked("plan") == 1


def test_flushing_redis_loses_no_generation(chef: Installation, model: ScriptedModel) -> None:
    chef.end("generators")
    says_page(model)
    answer = post(chef, headers={"Prefer": "respond-async"}).json()
    _flush(chef)
    chef.start_generators()

    assert ended(chef, answer)["status"] == "completed"


def _flush(chef: Installation) -> None:
    with redis.Redis(port=chef.redis_port) as server:
        server.flushall()
