"""Generations in the API: what is accepted, refused, listed, cancelled and retried."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.test import APIClient

from builds.generations import build_generated
from builds.models import Build
from chef.jobs.models import Status
from projects.actions import add_revision, create_project
from projects.engine.errors import EngineError
from projects.files.paths import NewFile
from projects.generations.queue import claim
from projects.generations.runner import Run
from projects.models import Generation, Project, TokensUsed

MakeClient = Callable[..., APIClient]
TODO_APP = {"prompt": "Build a simple todo app with React"}


@pytest.fixture
def client(owner: User, make_client: MakeClient) -> APIClient:
    return make_client(owner)


@pytest.fixture
def by_model(settings: Settings) -> None:
    settings.AI_PROVIDER = "openai"


@pytest.fixture
def project(owner: User) -> Project:
    project = create_project(by=owner, name="page")
    add_revision(project, files=[NewFile("index.html", b"<h1>hi</h1>")], dependencies={}, strategy={})
    return project


def run_next() -> Generation:
    lease = claim("worker")
    assert lease
    Run(lease, build_generated).execute()
    return Generation.objects.get(pk=lease.job.pk)


def fail() -> Generation:
    lease = claim("worker")
    assert lease
    lease.end(Status.FAILED, error=EngineError("model_refused").as_json())
    return lease.job


def errors(answer: Any, status: int) -> list[tuple[str, str | None]]:
    assert answer.status_code == status, answer.content
    return [(error["code"], error["attr"]) for error in answer.json()["errors"]]


# --- Requests -------------------------------------------------------------------------------------------


def test_a_prompt_is_accepted_with_a_link_to_its_status(client: APIClient) -> None:
    answer = client.post("/v1/generate", TODO_APP, headers={"Prefer": "respond-async"})

    assert answer.status_code == 202, answer.content
    body = answer.json()
    assert (body["status"], body["jobId"], body["filesGenerated"]) == ("generating", None, 0)
    assert answer["Location"] == body["links"]["self"]
    assert answer["Preference-Applied"] == "respond-async"
    generation = Generation.objects.get(pk=body["generationId"])
    assert (generation.kind, generation.prompt, generation.project.name) == (
        "new",
        TODO_APP["prompt"],
        TODO_APP["prompt"],
    )
    assert (generation.analysis, generation.tests, generation.auto_fix, generation.max_tokens) == (True,) * 3 + (
        200_000,
    )


def test_the_requested_options_are_kept(client: APIClient) -> None:
    config = {"enableAnalysis": False, "enableTests": False, "autoFix": False, "maxTokens": 5000}
    body = {**TODO_APP, "config": config, "strategy": {"runtime": "node", "version": "20"}, "name": "todo"}

    document = client.get(client.post("/v1/generate", body).json()["links"]["self"]).json()

    assert document["config"] == config
    assert document["strategy"] == {"runtime": "node", "version": "20"}
    assert Generation.objects.get().project.name == "todo"


BAD = {
    "no prompt": ({}, [("required", "prompt")]),
    "a blank prompt": ({"prompt": " "}, [("blank", "prompt")]),
    "a long prompt": ({"prompt": "x" * 20_001}, [("max_length", "prompt")]),
    "a NUL": ({"prompt": "a\0b"}, [("null_characters_not_allowed", "prompt")]),
    "a prompt of the wrong type": ({"prompt": 5}, [("invalid", "prompt")]),
    "several at once": (
        {"config": {"maxTokens": 10**9, "autoFix": "yes", "speed": 1}, "strategy": {"runtime": "cobol"}},
        [
            ("required", "prompt"),
            ("unknown_field", "config.speed"),
            ("invalid", "config.autoFix"),
            ("max_value", "config.maxTokens"),
            ("unknown_runtime", "strategy.runtime"),
        ],
    ),
    "a runtime without generated apps": (
        {**TODO_APP, "strategy": {"runtime": "bun"}},
        [("unknown_runtime", "strategy.runtime")],
    ),
    "no tokens": ({**TODO_APP, "config": {"maxTokens": 0}}, [("min_value", "config.maxTokens")]),
    "files": ({**TODO_APP, "files": {}}, [("unknown_field", "files")]),
}


@pytest.mark.parametrize(("body", "expected"), BAD.values(), ids=BAD.keys())
def test_all_errors_are_reported_at_once_and_nothing_is_created(
    body: dict[str, Any], expected: list[tuple[str, str]], client: APIClient
) -> None:
    found = errors(client.post("/v1/generate", body), 400)

    assert sorted(found) == sorted(expected)
    assert not Project.objects.exists()


def test_a_full_queue_refuses_with_retry_after(client: APIClient, settings: Settings) -> None:
    settings.OWNER_MAX_QUEUED = 1
    client.post("/v1/generate", TODO_APP)

    answer = client.post("/v1/generate", TODO_APP)

    assert errors(answer, 429) == [("owner_queue_full", None)]
    assert int(answer["Retry-After"]) > 0
    assert Project.objects.count() == 1


def test_an_exhausted_daily_budget_refuses_until_midnight(client: APIClient, owner: User, settings: Settings) -> None:
    settings.AI_OWNER_TOKENS_PER_DAY = 100
    client.post("/v1/generate", TODO_APP)
    TokensUsed.objects.create(owner=owner, day=Generation.objects.get().created_at.date(), tokens=100)

    answer = client.post("/v1/generate", TODO_APP)

    assert errors(answer, 429) == [("day_spent", None)]
    assert 0 < int(answer["Retry-After"]) <= 86_401


# --- Results --------------------------------------------------------------------------------------------


def test_a_starter_becomes_a_revision_and_its_build_is_queued(client: APIClient) -> None:
    address = client.post("/v1/generate", TODO_APP).json()["links"]["self"]
    run_next()

    document = client.get(address).json()

    build = Build.objects.get()
    assert (document["status"], document["jobId"], document["revision"]) == ("completed", str(build.pk), 1)
    assert (document["provider"], document["model"], document["stage"]) == ("starter", None, "starter")
    assert "React app" in document["message"]
    assert document["filesGenerated"] == len(document["files"]) == build.revision.file_count > 10
    assert document["tokens"] == {"input": 0, "output": 0, "total": 0, "limit": 200_000, "estimated": False}
    assert document["fix"] == {"ending": None, "bestRevision": None, "repairs": []}
    build_document = client.get(document["links"]["build"]).json()
    assert (build_document["generationId"], build_document["repairOf"], build_document["status"]) == (
        document["generationId"],
        None,
        "queued",
    )
    revision = client.get(f"/v1/projects/{document['projectId']}/revisions/1").json()
    assert (revision["origin"], revision["generationId"]) == ("generation", document["generationId"])


def test_a_failure_explains_its_cause_and_remedy(client: APIClient) -> None:
    address = client.post("/v1/generate", TODO_APP).json()["links"]["self"]
    fail()

    document = client.get(address).json()

    assert document["status"] == "failed"
    assert (document["error"]["code"], document["error"]["whose"]) == ("model_refused", "model")
    assert document["error"]["hint"]
    assert document["finishedAt"]


def test_generations_are_listed_newest_first_with_few_queries(
    client: APIClient, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(5):
        client.post("/v1/generate", TODO_APP)
        run_next()

    with django_assert_max_num_queries(12):
        found = client.get("/v1/generations").json()["results"]

    assert [one["createdAt"] for one in found] == sorted((one["createdAt"] for one in found), reverse=True)
    assert len(found) == 5
    one = client.get(f"/v1/generations?project={found[2]['projectId']}").json()["results"]
    assert one == [found[2]]


def test_cancelling_is_idempotent(client: APIClient) -> None:
    address = client.post("/v1/generate", TODO_APP).json()["links"]["self"]

    first, second = client.post(f"{address}/cancel"), client.post(f"{address}/cancel")

    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json() == second.json()
    assert (first.json()["status"], first.json()["error"]["code"]) == ("cancelled", "cancelled")
    assert claim("worker") is None


def test_a_failed_generation_is_retried_as_a_new_one(client: APIClient) -> None:
    address = client.post("/v1/generate", TODO_APP).json()["links"]["self"]
    old = fail()

    answer = client.post(f"{address}/retry", {"config": {"maxTokens": 9000}})

    assert answer.status_code == 202
    again = Generation.objects.get(pk=answer.json()["generationId"])
    assert (again.retry_of, again.project, again.prompt, again.max_tokens) == (old, old.project, old.prompt, 9000)
    assert run_next().status == Status.COMPLETED
    assert errors(client.post(f"/v1/generations/{again.pk}/retry"), 409) == [("generation_not_ended", None)]


# --- Changing a project ---------------------------------------------------------------------------------


def test_without_a_model_a_project_cannot_be_edited(client: APIClient, project: Project) -> None:
    answer = client.post(f"/v1/projects/{project.pk}/generate", {"prompt": "Make it blue"})

    assert errors(answer, 422) == [("no_model", None)]
    assert not Generation.objects.exists()


@pytest.mark.usefixtures("by_model")
def test_an_edit_is_based_on_the_last_revision(client: APIClient, project: Project) -> None:
    answer = client.post(f"/v1/projects/{project.pk}/generate", {"prompt": "Make it blue"})

    assert answer.status_code == 202, answer.content
    document = client.get(answer.json()["links"]["self"]).json()
    assert (document["kind"], document["baseRevision"], document["projectId"]) == ("edit", 1, str(project.pk))


@pytest.mark.usefixtures("by_model")
def test_a_second_edit_is_refused_while_one_runs(client: APIClient, project: Project) -> None:
    client.post(f"/v1/projects/{project.pk}/generate", {"prompt": "Make it blue"})

    answer = client.post(f"/v1/projects/{project.pk}/generate", {"prompt": "Make it red"})

    assert errors(answer, 409) == [("generation_under_way", None)]
    assert Generation.objects.count() == 1


@pytest.mark.usefixtures("by_model")
def test_a_project_without_files_cannot_be_edited(client: APIClient, owner: User) -> None:
    empty = create_project(by=owner, name="empty")

    answer = client.post(f"/v1/projects/{empty.pk}/generate", {"prompt": "Make it blue"})

    assert errors(answer, 409) == [("nothing_to_edit", None)]


def test_deleting_a_project_ends_its_generations(client: APIClient) -> None:
    project = client.post("/v1/generate", TODO_APP).json()["projectId"]
    run_next()
    client.post("/v1/generate", TODO_APP)

    assert client.delete(f"/v1/projects/{project}").status_code == 204
    assert Generation.objects.count() == 1
    assert not Build.objects.exists()
