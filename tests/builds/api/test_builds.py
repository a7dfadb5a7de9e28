"""Builds in the API: lists and filters, cancel, retry, rebuild, and query counts."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from rest_framework.test import APIClient

from builds import actions
from builds.models import Attempt, Build, PhaseRun
from builds.queue import forecast
from builds.queue.claims import claim
from builds.verdicts.evidence import verdict
from chef.jobs.models import Status

MakeClient = Callable[..., APIClient]


@pytest.fixture
def client(owner: User, make_client: MakeClient) -> APIClient:
    return make_client(owner)


def fail(build: Build, code: str) -> None:
    lease = claim("worker")
    assert lease
    assert lease.build.pk == build.pk
    lease.end(Status.FAILED, verdict=verdict(code, phase="build").as_json())


def list_ids(client: APIClient, **query: Any) -> list[str]:
    answer = client.get("/v1/builds", query)
    assert answer.status_code == 200, answer.content
    return [build["jobId"] for build in answer.json()["results"]]


# --- Lists -----------------------------------------------------------------------------------------------------


def test_own_builds_are_listed_newest_first(client: APIClient, other: User, queue_build: Any) -> None:
    first, second = queue_build(), queue_build()
    queue_build(by=other)

    assert list_ids(client) == [str(second.pk), str(first.pk)]


def test_pages_by_cursor_neither_lose_nor_repeat_builds(client: APIClient, queue_build: Any) -> None:
    builds = [queue_build() for _ in range(5)]
    # Rows with equal timestamps are the hard case for a cursor.
    Build.objects.update(created_at=timezone.now())

    seen, address = [], "/v1/builds?limit=2"
    while address:
        page = client.get(address).json()
        seen += [build["jobId"] for build in page["results"]]
        address = page["next"]

    assert sorted(seen) == sorted(str(build.pk) for build in builds)


def test_a_list_can_be_paged_backwards(client: APIClient, queue_build: Any) -> None:
    for _ in range(3):
        queue_build()

    first = client.get("/v1/builds?limit=2").json()
    second = client.get(first["next"]).json()

    assert first["previous"] is None
    assert client.get(second["previous"]).json()["results"] == first["results"]


def test_builds_are_filtered(client: APIClient, queue_build: Any) -> None:
    failed = queue_build()
    fail(failed, "out_of_memory")
    queued = queue_build()
    Build.objects.filter(pk=queued.pk).update(runtime="node")

    assert list_ids(client, status="failed") == [str(failed.pk)]
    assert list_ids(client, verdictClass="limit") == [str(failed.pk)]
    assert list_ids(client, verdictClass="build") == []
    assert list_ids(client, runtime="node") == [str(queued.pk)]
    assert list_ids(client, project=str(failed.project_id)) == [str(failed.pk)]
    assert list_ids(client, project=str(failed.project_id), status="queued") == []


@pytest.mark.parametrize(
    ("query", "attr"),
    [
        ("status=lost", "status"),
        ("project=x", "project"),
        ("runtime=cobol", "runtime"),
        ("verdictClass=x", "verdictClass"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("colour=red", "colour"),
    ],
)
def test_an_invalid_filter_is_refused(client: APIClient, query: str, attr: str) -> None:
    answer = client.get(f"/v1/builds?{query}")

    assert answer.status_code == 400
    assert [error["attr"] for error in answer.json()["errors"]] == [attr]


@pytest.mark.parametrize("cursor", ["x", "cD14", "bz0xJnA9eA==", "cj0xJnA9MjAyNi0wMS0wMQ=="])
def test_a_forged_cursor_is_not_a_server_error(client: APIClient, cursor: str) -> None:
    assert client.get(f"/v1/builds?cursor={cursor}").status_code in {200, 400}


@pytest.mark.parametrize("path", ["/v1/builds", "/v1/projects"])
def test_the_number_of_queries_does_not_grow_with_the_list(
    client: APIClient,
    queue_build: Any,
    django_assert_max_num_queries: Any,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    monkeypatch.setattr(forecast, "FRESH_SECONDS", 3600)  # a slow machine may outlast the cache's lifetime
    for _ in range(12):
        build = queue_build()
        for number in (1, 2):
            attempt = Attempt.objects.create(build=build, number=number, worker="w")
            PhaseRun.objects.create(attempt=attempt, name="preparation")
        Build.objects.filter(pk=build.pk).update(fence=2)
    client.get(path)  # fill the caches

    with django_assert_max_num_queries(6):
        page = client.get(f"{path}?limit=10").json()

    assert len(page["results"]) == 10


# --- One build -------------------------------------------------------------------------------------------------


def test_a_build_is_the_same_document_at_both_of_its_paths(client: APIClient, queue_build: Any) -> None:
    build = queue_build()

    by_id = client.get(f"/v1/builds/{build.pk}").json()
    by_project = client.get(f"/v1/projects/{build.project_id}/status").json()

    del by_id["queue"], by_project["queue"]
    assert by_id == by_project
    assert by_id["maxAttempts"] == 3
    assert by_id["usage"] == {"peakMemoryBytes": None, "cpuSeconds": None, "diskBytes": None, "logBytes": 0}
    assert set(by_id["links"]) == {"self", "status", "logs", "events", "artifacts", "page"}


def test_reading_a_build_makes_few_queries(
    client: APIClient, queue_build: Any, django_assert_max_num_queries: Any
) -> None:
    build = queue_build()
    client.get(f"/v1/builds/{build.pk}")

    with django_assert_max_num_queries(6):
        client.get(f"/v1/builds/{build.pk}")


def test_only_the_current_attempt_s_phases_are_shown(client: APIClient, queue_build: Any) -> None:
    build = queue_build()
    for number, phases in ((1, ["preparation", "installation"]), (2, ["preparation"])):
        attempt = Attempt.objects.create(build=build, number=number, worker="w")
        for name in phases:
            PhaseRun.objects.create(attempt=attempt, name=name, status="completed", finished_at=timezone.now())
    Build.objects.filter(pk=build.pk).update(fence=2)

    document = client.get(f"/v1/builds/{build.pk}").json()

    assert [phase["name"] for phase in document["phases"]] == ["preparation"]


# --- Cancel, retry, rebuild ------------------------------------------------------------------------------------


def test_a_queued_build_is_cancelled_at_once_and_cancelling_is_idempotent(client: APIClient, queue_build: Any) -> None:
    build = queue_build()

    first = client.post(f"/v1/builds/{build.pk}/cancel")
    again = client.post(f"/v1/builds/{build.pk}/cancel")

    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json() == again.json()
    assert first.json()["status"] == "cancelled"
    assert first.json()["verdict"]["class"] == "cancelled"
    assert claim("worker") is None


def test_a_running_build_is_cancelled_and_its_worker_may_not_write(client: APIClient, queue_build: Any) -> None:
    build = queue_build()
    lease = claim("worker")
    assert lease

    answer = client.post(f"/v1/builds/{build.pk}/cancel")

    assert answer.status_code == 202
    assert not lease._renew()
    assert lease.lost.is_set()


def test_cancelling_a_finished_build_changes_nothing(client: APIClient, queue_build: Any) -> None:
    build = queue_build()
    fail(build, "out_of_memory")

    answer = client.post(f"/v1/builds/{build.pk}/cancel")

    assert answer.status_code == 200
    assert answer.json()["verdict"]["code"] == "out_of_memory"


def test_a_retry_is_a_new_build_of_the_same_revision(client: APIClient, queue_build: Any) -> None:
    build = queue_build()
    fail(build, "out_of_memory")

    answer = client.post(f"/v1/builds/{build.pk}/retry")

    assert answer.status_code == 201
    document = answer.json()
    assert document["retryOf"] == str(build.pk)
    assert (document["number"], document["revision"], document["status"]) == (2, 1, "queued")
    assert answer["Location"] == document["links"]["self"]
    assert client.get(f"/v1/builds/{build.pk}").json()["status"] == "failed"


def test_an_unfinished_build_cannot_be_retried(client: APIClient, queue_build: Any) -> None:
    build = queue_build()

    answer = client.post(f"/v1/builds/{build.pk}/retry")

    assert answer.status_code == 409
    assert answer.json()["errors"][0]["code"] == "build_not_finished"
    assert Build.objects.count() == 1


def test_a_project_can_be_rebuilt(client: APIClient, owner: User, queue_build: Any) -> None:
    build = queue_build()
    project = build.project
    actions.submit_revision(project, by=owner, files=[], dependencies={"left-pad": "1"}, strategy={})

    latest = client.post(f"/v1/projects/{project.pk}/builds")
    earlier = client.post(f"/v1/projects/{project.pk}/builds", {"revision": 1, "priority": "high"})

    assert (latest.status_code, latest.json()["revision"]) == (201, 2)
    assert (earlier.json()["revision"], earlier.json()["priority"]) == (1, "high")
    assert client.post(f"/v1/projects/{project.pk}/builds", {"revision": 9}).status_code == 404
    assert client.post(f"/v1/projects/{project.pk}/builds", {"revision": 0}).status_code == 400
    assert client.post(f"/v1/projects/{project.pk}/builds", {"image": "evil"}).status_code == 400


def test_full_queues_are_refused_with_retry_after(
    client: APIClient, other: User, queue_build: Any, settings: Any
) -> None:
    build = queue_build()
    fail(build, "out_of_memory")
    queue_build()
    settings.OWNER_MAX_QUEUED = 1

    for_owner = client.post(f"/v1/builds/{build.pk}/retry")
    settings.OWNER_MAX_QUEUED, settings.MAX_QUEUED = 100, 1
    for_all = client.post("/v1/projects", {"files": {"index.html": ""}})

    assert (for_owner.status_code, for_owner.json()["errors"][0]["code"]) == (429, "owner_queue_full")
    assert (for_all.status_code, for_all.json()["errors"][0]["code"]) == (503, "queue_full")
    assert int(for_owner["Retry-After"]) >= 1
    assert int(for_all["Retry-After"]) >= 1
    assert Build.objects.count() == 2


# --- Access ----------------------------------------------------------------------------------------------------


def test_another_user_s_build_is_not_found(client: APIClient, other: User, queue_build: Any) -> None:
    build = queue_build(by=other)

    for path in ("", "/logs", "/events"):
        assert client.get(f"/v1/builds/{build.pk}{path}").status_code == 404
    for path in ("/cancel", "/retry"):
        assert client.post(f"/v1/builds/{build.pk}{path}").status_code == 404
    assert Build.objects.get().status == "queued"


def test_a_read_token_changes_nothing(owner: User, make_client: MakeClient, queue_build: Any) -> None:
    build = queue_build()
    reader = make_client(owner, scope="read")

    answers = [reader.post(f"/v1/builds/{build.pk}/{verb}") for verb in ("cancel", "retry")]

    assert {answer.status_code for answer in answers} == {403}
    assert {answer.json()["errors"][0]["code"] for answer in answers} == {"insufficient_scope"}
    assert reader.get(f"/v1/builds/{build.pk}").json()["status"] == "queued"


def test_a_queued_build_has_a_position_and_no_duration(client: APIClient, queue_build: Any) -> None:
    build = queue_build()
    Build.objects.filter(pk=build.pk).update(created_at=timezone.now() - timedelta(hours=1))

    document = client.get(f"/v1/builds/{build.pk}").json()

    assert document["durationMs"] is None
    assert document["queue"]["position"] == 1
