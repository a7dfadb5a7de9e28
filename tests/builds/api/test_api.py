"""The API over HTTP, against the real database."""

import base64
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from rest_framework.test import APIClient

from builds.models import Build, LogChunk
from builds.queue.claims import claim
from chef.jobs.models import Status
from projects.models import Project
from tests.answers import body_of

MakeClient = Callable[..., APIClient]
PAGE = {"index.html": "<h1>hi</h1>"}


@pytest.fixture
def client(owner: User, make_client: MakeClient) -> APIClient:
    return make_client(owner)


def post(client: APIClient, **body: Any) -> Any:
    return client.post("/v1/projects", body)


def errors(answer: Any) -> set[tuple[str, str | None]]:
    assert answer.status_code == 400, answer.content
    assert answer.json()["type"] == "validation_error"
    return {(error["code"], error["attr"]) for error in answer.json()["errors"]}


def test_a_submitted_project_is_queued_with_its_files(client: APIClient) -> None:
    encoded = base64.b64encode(b"\x00\xff").decode()
    files = [{"path": "a/run.sh", "content": "#!/bin/sh", "executable": True}]
    files += [{"path": "b.bin", "content": encoded, "encoding": "base64"}]

    answer = post(client, name="todo", files=files, strategy={"runtime": "node", "buildCommand": "./a/run.sh"})

    assert answer.status_code == 201
    document = answer.json()
    assert document["status"] == "queued"
    build = Build.objects.get(pk=document["jobId"])
    assert str(build.project_id) == document["projectId"]
    assert build.revision.strategy == {"runtime": "node", "buildCommand": "./a/run.sh"}
    assert [(f.path, bytes(f.content), f.executable) for f in build.revision.files.all()] == [
        ("a/run.sh", b"#!/bin/sh", True),
        ("b.bin", b"\x00\xff", False),
    ]
    assert client.get(document["links"]["status"]).json()["jobId"] == document["jobId"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"files": {}}, {("no_files", "files")}),
        (
            {"files": {"../x": "", "/etc/passwd": ""}},
            {("invalid_path", "files.../x"), ("invalid_path", "files./etc/passwd")},
        ),
        ({"files": {"a": "", "A": ""}}, {("duplicate_path", "files.A")}),
        ({"files": {"big": "x" * (1024**2 + 1)}}, {("file_too_large", "files.big")}),
        ({"files": {str(i): "" for i in range(1001)}}, {("too_many_files", "files")}),
        ({"files": {"a": 1}}, {("invalid_file", "files.a")}),
        ({"files": [{"path": "a", "content": "!", "encoding": "base64"}]}, {("invalid_file", "files.a")}),
        ({"files": [{"path": "a", "content": "", "mode": 1}]}, {("invalid_file", "files.a")}),
        ({"files": "a"}, {("shape", "files")}),
        ({"files": PAGE, "image": "evil"}, {("unknown_field", "image")}),
        ({"files": PAGE, "strategy": {"privileged": True}}, {("unknown_field", "strategy.privileged")}),
        ({"files": PAGE, "strategy": {"volumes": ["/:/host"]}}, {("unknown_field", "strategy.volumes")}),
        ({"files": PAGE, "strategy": {"runtime": "cobol"}}, {("unknown_runtime", "strategy.runtime")}),
        ({"files": PAGE, "strategy": {"runtime": "node", "version": "4"}}, {("unknown_version", "strategy.version")}),
        ({"files": PAGE, "strategy": {"outputs": ["../x"]}}, {("invalid_path", "strategy.outputs.0")}),
        ({"files": PAGE, "strategy": {"rootDir": "/etc"}}, {("invalid_path", "strategy.rootDir")}),
        ({"files": PAGE, "strategy": {"memory": "64g"}}, {("out_of_range", "strategy.memory")}),
        ({"files": PAGE, "strategy": {"memory": "-1"}}, {("invalid", "strategy.memory")}),
        ({"files": PAGE, "strategy": {"cpus": 1e9}}, {("out_of_range", "strategy.cpus")}),
        ({"files": PAGE, "strategy": {"cpus": "many"}}, {("invalid", "strategy.cpus")}),
        ({"files": PAGE, "strategy": {"timeout": -5}}, {("min_value", "strategy.timeout")}),
        ({"files": PAGE, "strategy": {"timeout": 10**12}}, {("out_of_range", "strategy.timeout")}),
        ({"files": PAGE, "dependencies": {"$(reboot)": "1"}}, {("invalid_dependency", "dependencies.$(reboot)")}),
        ({"files": PAGE, "priority": "now"}, {("invalid_choice", "priority")}),
    ],
)
def test_invalid_input_is_explained_and_creates_nothing(client: APIClient, body: dict[str, Any], expected: Any) -> None:
    answer = post(client, **body)

    assert errors(answer) == expected
    assert all(len(error["detail"]) > 10 for error in answer.json()["errors"])
    assert not Project.objects.exists()


def test_all_errors_are_reported_at_once(client: APIClient) -> None:
    answer = post(client, files={"/x": ""}, strategy={"runtime": "cobol"}, name="", nonsense=1)

    assert {attr for _, attr in errors(answer)} == {"files./x", "strategy.runtime", "name", "nonsense"}


def test_nan_in_json_is_refused(client: APIClient) -> None:
    body = '{"files": {"a": ""}, "strategy": {"cpus": NaN}}'

    answer = client.generic("POST", "/v1/projects", body, content_type="application/json")

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["code"] == "parse_error"


def test_shell_metacharacters_in_names_are_kept_literally(client: APIClient) -> None:
    name, path = "$(reboot); `id` && 'x'", "a;b $(c) 'd'.txt"

    answer = post(client, name=name, files={path: "x"})

    build = Build.objects.get(pk=answer.json()["jobId"])
    assert (build.project.name, build.revision.files.get().path) == (name, path)


@pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer nope", "Bearer a.b", "Basic eDp5", "Bearer \xff"])
def test_requests_without_a_valid_token_are_refused(db: None, authorization: str) -> None:
    answer = APIClient().post("/v1/projects", {"files": PAGE}, headers={"Authorization": authorization})

    assert answer.status_code == 401
    assert answer.json()["errors"][0]["code"] in {"not_authenticated", "invalid_token"}


def test_a_revoked_or_expired_token_is_refused(owner: User, make_client: MakeClient) -> None:
    revoked, expired = make_client(owner, revoked=True), make_client(owner)
    owner.api_tokens.filter(revoked=False).update(
        created=timezone.now() - timedelta(days=2), expiry_date=timezone.now() - timedelta(days=1)
    )

    assert revoked.get("/v1/builds").status_code == 401
    assert expired.get("/v1/builds").status_code == 401


def test_a_read_token_may_read_but_not_write(owner: User, make_client: MakeClient, queue_build: Any) -> None:
    build, reader = queue_build(), make_client(owner, scope="read")

    assert reader.get(f"/v1/projects/{build.project_id}/status").status_code == 200
    answer = post(reader, files=PAGE)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (403, "insufficient_scope")


@pytest.mark.parametrize("path", ["status", "logs", "artifacts", "artifacts/index.html"])
def test_another_user_s_project_is_not_found(path: str, other: User, make_client: MakeClient, queue_build: Any) -> None:
    build = queue_build()

    for project in (build.project_id, "00000000-0000-0000-0000-000000000000", "x"):
        answer = make_client(other).get(f"/v1/projects/{project}/{path}?jobId={build.pk}")
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "not_found")


def test_errors_have_one_shape_everywhere(client: APIClient) -> None:
    for answer in (
        client.get("/v1/nothing"),
        client.post("/v1/"),
        client.get("/health/nothing"),
        client.delete("/v1/projects"),
        client.generic("POST", "/v1/projects", "{", content_type="application/json"),
        client.generic("POST", "/v1/projects", "x", content_type="text/plain"),
    ):
        assert answer.status_code in (404, 405, 400, 415)
        assert answer.json()["type"] == "client_error"
        assert set(answer.json()["errors"][0]) == {"code", "detail", "attr"}


def test_status_of_a_queued_build(client: APIClient, queue_build: Any) -> None:
    first, second = queue_build(), queue_build()

    document = client.get(f"/v1/projects/{second.project_id}/status").json()

    assert document["status"] == "queued"
    assert document["queue"]["position"] == 2
    assert (document["verdict"], document["startedAt"], document["attempt"]) == (None, None, 0)
    assert client.get(f"/v1/projects/{first.project_id}/status").json()["queue"]["position"] == 1


def test_log_pages_continue_from_a_cursor(client: APIClient, queue_build: Any) -> None:
    build = queue_build()
    lease = claim("w")
    assert lease
    for sequence in range(1, 6):
        LogChunk.objects.create(
            build=build, attempt=1, sequence=sequence, phase="build", stream="stdout", text=f"{sequence}\n",
            timestamp=timezone.now(),
        )  # fmt: skip
    path = f"/v1/projects/{build.project_id}/logs"

    page = client.get(f"{path}?limit=2").json()
    rest = client.get(f"{path}?after={page['nextCursor']}").json()
    lease.end(Status.COMPLETED)
    none = client.get(f"{path}?after={rest['nextCursor']}").json()

    assert [entry["text"] for entry in page["entries"]] == ["1\n", "2\n"]
    assert [entry["text"] for entry in rest["entries"]] == ["3\n", "4\n", "5\n"]
    assert (rest["complete"], none["entries"], none["complete"]) == (False, [], True)
    assert none["nextCursor"] == rest["nextCursor"]


@pytest.mark.parametrize("query", ["after=x", "after=1", "limit=0", "limit=1001", "limit=-1", "limit=²", "phase=lunch"])
def test_an_invalid_log_query_is_refused(client: APIClient, queue_build: Any, query: str) -> None:
    build = queue_build()

    assert errors(client.get(f"/v1/projects/{build.project_id}/logs?{query}"))


def test_a_lost_attempt_s_log_is_not_shown(client: APIClient, queue_build: Any) -> None:
    build = queue_build()
    row = {"build": build, "phase": "build", "stream": "stdout", "timestamp": timezone.now()}
    LogChunk.objects.create(attempt=1, sequence=1, text="lost\n", **row)
    LogChunk.objects.create(attempt=2, sequence=1, text="kept\n", **row)
    Build.objects.filter(pk=build.pk).update(fence=2)

    page = client.get(f"/v1/projects/{build.project_id}/logs?after=1.1").json()
    text = client.get(f"/v1/projects/{build.project_id}/logs", headers={"Accept": "text/plain"})

    assert [entry["text"] for entry in page["entries"]] == ["kept\n"]
    assert body_of(text) == b"kept\n"


@pytest.mark.redis
def test_health_reports_missing_workers(db: None) -> None:
    answer = APIClient().get("/health")

    assert answer.status_code == 503
    assert answer.json()["status"] == "degraded"
    assert answer.json()["checks"]["redis"] == "ok"
    assert answer.json()["checks"]["workers"] == {"alive": 0, "busy": 0}
