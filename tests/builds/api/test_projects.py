"""Projects in the API: lists, changes, revisions and their files, deletion, detection, runtimes."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from rest_framework.test import APIClient

from builds.models import Artifact, Build, LogChunk
from builds.queue.claims import claim
from chef.jobs.models import Status
from projects.models import Project
from tests.answers import body_of

MakeClient = Callable[..., APIClient]
FILES = {"index.html": "<h1>hi</h1>", "src/app.js": "let a = 1;\n"}


@pytest.fixture
def client(owner: User, make_client: MakeClient) -> APIClient:
    return make_client(owner)


@pytest.fixture(autouse=True)
def own_store(settings: Any, tmp_path: Any) -> None:
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(tmp_path)},
        },
    }


def submit(client: APIClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/projects", {"files": FILES, **body})
    assert answer.status_code == 201, answer.content
    return dict(answer.json())


def complete(outputs: dict[str, bytes]) -> Build:
    """Complete the next build with these artifacts."""
    lease = claim("worker")
    assert lease
    for index, (name, content) in enumerate(outputs.items()):
        key = default_storage.save(f"{lease.build.pk}/1/{index}", ContentFile(content))
        row = {"size": len(content), "sha256": f"{index:064x}", "content_type": "text/html", "storage_key": key}
        Artifact.objects.create(build=lease.build, attempt=1, name=name, **row)
    lease.end(Status.COMPLETED)
    return lease.build


# --- Projects --------------------------------------------------------------------------------------------------


def test_projects_are_listed_with_their_latest_build(client: APIClient, other: User, queue_build: Any) -> None:
    first, second = submit(client, name="one"), submit(client, name="two")
    client.post(f"/v1/projects/{first['projectId']}/builds")
    queue_build(by=other)

    results = client.get("/v1/projects").json()["results"]

    assert [project["name"] for project in results] == ["two", "one"]
    assert results[0]["latestBuild"]["jobId"] == second["jobId"]
    assert results[1]["latestBuild"]["number"] == 2


def test_a_project_is_renamed_and_its_environment_is_changed_by_name(client: APIClient) -> None:
    project = submit(client, name="old", env={"MODE": "dev", "GONE": "1"}, secrets={"API_KEY": "hunter2hunter2"})
    path = f"/v1/projects/{project['projectId']}"

    answer = client.patch(path, {"name": "new", "env": {"MODE": "prod", "GONE": None}})

    assert answer.status_code == 200, answer.content
    document = client.get(path).json()
    assert document["name"] == "new"
    assert document["env"] == {"MODE": "prod"}
    assert document["secrets"] == [{"name": "API_KEY", "installation": False}]
    assert "hunter2" not in str(document)


def test_an_invalid_update_changes_nothing(client: APIClient) -> None:
    project = submit(client, name="old")
    path = f"/v1/projects/{project['projectId']}"

    answer = client.patch(path, {"name": "x" * 101, "env": {"LD_PRELOAD": "x"}, "owner": "me"})

    assert answer.status_code == 400
    assert {error["attr"] for error in answer.json()["errors"]} == {"name", "env.LD_PRELOAD", "owner"}
    assert client.get(path).json()["name"] == "old"


@pytest.mark.usefixtures("each_store")
def test_deleting_a_project_deletes_everything_of_it(
    client: APIClient, django_capture_on_commit_callbacks: Any
) -> None:
    project = submit(client)
    build = complete({"index.html": b"x"})
    LogChunk.objects.create(
        build=build, attempt=1, sequence=1, phase="build", stream="stdout", timestamp=build.created_at, text="x"
    )
    client.post(f"/v1/projects/{project['projectId']}/builds")
    running = claim("worker")
    key = Artifact.objects.get().storage_key

    with django_capture_on_commit_callbacks(execute=True):
        answer = client.delete(f"/v1/projects/{project['projectId']}")

    assert answer.status_code == 204
    assert not Project.objects.exists()
    assert not Build.objects.exists()
    assert not LogChunk.objects.exists()
    assert not default_storage.exists(key)
    assert running is not None
    assert not running._renew()
    assert client.get(f"/v1/projects/{project['projectId']}").status_code == 404


# --- Revisions -------------------------------------------------------------------------------------------------


def test_a_new_revision_is_stored_and_built(client: APIClient) -> None:
    project = submit(client)
    path = f"/v1/projects/{project['projectId']}"

    answer = client.post(f"{path}/revisions", {"files": {"index.html": "2"}})

    assert answer.status_code == 201
    assert answer.json()["projectId"] == project["projectId"]
    assert client.get(f"{path}/status").json()["revision"] == 2
    assert [revision["number"] for revision in client.get(f"{path}/revisions").json()["results"]] == [2, 1]


def test_a_revision_lists_its_files_and_serves_each(client: APIClient) -> None:
    project = submit(client, strategy={"runtime": "static"})
    path = f"/v1/projects/{project['projectId']}/revisions/1"

    revision = client.get(path).json()
    file = client.get(revision["files"][1]["url"])

    assert (revision["fileCount"], revision["strategy"], revision["origin"]) == (2, {"runtime": "static"}, "upload")
    assert [(each["path"], each["size"]) for each in revision["files"]] == [("index.html", 11), ("src/app.js", 11)]
    assert body_of(file) == b"let a = 1;\n"
    assert file["Content-Disposition"] == 'attachment; filename="app.js"'
    for missing in ("/files/nope", "/files/src", "/files/%00", "/files/../x"):
        assert client.get(path + missing).status_code == 404


@pytest.mark.parametrize("number", ["0", "2", "99999999999999999999", "x", "-1"])
def test_an_unknown_revision_is_not_found(client: APIClient, number: str) -> None:
    project = submit(client)

    assert client.get(f"/v1/projects/{project['projectId']}/revisions/{number}").status_code == 404


def test_a_revision_s_archive_contains_its_files(client: APIClient) -> None:
    project = submit(client, name="My site")

    answer = client.get(f"/v1/projects/{project['projectId']}/revisions/1/archive")

    assert answer["Content-Disposition"] == 'attachment; filename="my-site-1.tar.gz"'
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(body_of(answer)))) as archive:
        found = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert found == {path: text.encode() for path, text in FILES.items()}


def test_another_user_s_project_is_not_found_on_any_path(client: APIClient, other: User, queue_build: Any) -> None:
    project = queue_build(by=other).project_id
    gets = ["", "/status", "/logs", "/artifacts", "/artifacts/index.html", "/artifacts.zip", "/revisions"]
    gets += ["/revisions/1", "/revisions/1/files/index.html", "/revisions/1/archive"]

    answers = [client.get(f"/v1/projects/{project}{path}") for path in gets]
    answers += [client.post(f"/v1/projects/{project}/{path}", {"files": FILES}) for path in ("revisions",)]
    answers += [client.post(f"/v1/projects/{project}/builds")]
    answers += [client.patch(f"/v1/projects/{project}", {"name": "mine"}), client.delete(f"/v1/projects/{project}")]

    assert {answer.status_code for answer in answers} == {404}
    assert {answer.json()["errors"][0]["code"] for answer in answers} == {"not_found"}
    assert Build.objects.count() == 1


def test_a_read_token_may_not_write_on_any_path(owner: User, make_client: MakeClient, queue_build: Any) -> None:
    project = queue_build().project_id
    reader = make_client(owner, scope="read")

    answers = [reader.post(path, {"files": FILES}) for path in ("/v1/projects", f"/v1/projects/{project}/revisions")]
    answers += [reader.post(f"/v1/projects/{project}/builds"), reader.delete(f"/v1/projects/{project}")]
    answers += [reader.patch(f"/v1/projects/{project}", {"name": "x"})]

    assert {answer.status_code for answer in answers} == {403}
    assert reader.get(f"/v1/projects/{project}").status_code == 200


# --- Artifacts -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("each_store")
def test_an_artifact_supports_ranges_and_conditional_requests(client: APIClient) -> None:
    project = submit(client)
    complete({"dist/page.html": b"0123456789"})
    artifact = client.get(f"/v1/projects/{project['projectId']}/artifacts").json()["artifacts"][0]

    def fetch(**headers: str) -> Any:
        return client.get(artifact["url"], headers=headers)

    whole, part, tail = fetch(), fetch(Range="bytes=2-4"), fetch(Range="bytes=-3")
    known, beyond = fetch(**{"If-None-Match": whole["ETag"]}), fetch(Range="bytes=10-")
    changed = fetch(Range="bytes=2-4", **{"If-Range": '"other"'})
    head = client.head(artifact["url"])

    assert (whole.status_code, body_of(whole), whole["Content-Length"]) == (200, b"0123456789", "10")
    assert (part.status_code, body_of(part), part["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    assert (tail.status_code, body_of(tail), tail["Content-Range"]) == (206, b"789", "bytes 7-9/10")
    assert (known.status_code, body_of(known)) == (304, b"")
    assert (beyond.status_code, beyond["Content-Range"]) == (416, "bytes */10")
    assert beyond.json()["errors"][0]["code"] == "range_not_satisfiable"
    assert (changed.status_code, body_of(changed)) == (200, b"0123456789")
    assert (head.status_code, head["Content-Length"], body_of(head)) == (200, "10", b"")
    assert whole["X-Content-Type-Options"] == "nosniff"
    assert whole["Content-Disposition"] == 'attachment; filename="page.html"'


@pytest.mark.parametrize("header", ["bytes=", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=1-2,4-5", "bytes=5-2"])
def test_an_invalid_range_returns_the_whole_file(client: APIClient, header: str) -> None:
    project = submit(client)
    complete({"a": b"0123456789"})

    answer = client.get(f"/v1/projects/{project['projectId']}/artifacts/a", headers={"Range": header})

    assert (answer.status_code, body_of(answer)) == (200, b"0123456789")


@pytest.mark.usefixtures("each_store")
def test_all_artifacts_are_downloaded_as_one_zip(client: APIClient) -> None:
    project = submit(client, name="Säge")
    complete({"dist/index.html": b"x" * 5000, "dist/ümlaut.txt": b"", "big": b"z" * 3_000_000})

    answer = client.get(f"/v1/projects/{project['projectId']}/artifacts.zip")
    content = body_of(answer)

    assert answer["Content-Length"] == str(len(content))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert {each.filename: each.file_size for each in archive.infolist()} == {
            "dist/index.html": 5000,
            "dist/ümlaut.txt": 0,
            "big": 3_000_000,
        }


def test_there_is_no_zip_without_artifacts(client: APIClient) -> None:
    project = submit(client)

    assert client.get(f"/v1/projects/{project['projectId']}/artifacts.zip").status_code == 404


# --- Logs as text ----------------------------------------------------------------------------------------------


def test_a_text_log_supports_ranges_with_and_without_colours(client: APIClient) -> None:
    project = submit(client)
    build = Build.objects.get()
    Build.objects.update(fence=1)
    row = {"build": build, "attempt": 1, "phase": "build", "stream": "stdout", "timestamp": build.created_at}
    LogChunk.objects.bulk_create(
        LogChunk(sequence=index, text=f"\x1b[32mzeile\x1b[0m {index} ä\n", **row) for index in range(1, 251)
    )
    path = f"/v1/projects/{project['projectId']}/logs"

    def fetch(query: str = "", **headers: str) -> Any:
        return client.get(path + query, headers={"Accept": "text/plain", **headers})

    coloured = body_of(fetch())
    plain = body_of(fetch("?ansi=strip"))
    parts = [
        body_of(fetch("?ansi=strip", Range=f"bytes={start}-{start + 999}")) for start in range(0, len(plain), 1000)
    ]

    assert coloured.decode() == "".join(f"\x1b[32mzeile\x1b[0m {index} ä\n" for index in range(1, 251))
    assert plain.decode() == "".join(f"zeile {index} ä\n" for index in range(1, 251))
    assert b"".join(parts) == plain
    assert fetch(**{"If-None-Match": fetch()["ETag"]}).status_code == 304
    assert fetch()["ETag"] != fetch("?ansi=strip")["ETag"]


# --- Detection and runtimes ------------------------------------------------------------------------------------


def test_detection_returns_the_strategy_and_stores_nothing(client: APIClient) -> None:
    files = {"package.json": '{"scripts": {"build": "vite build"}, "engines": {"node": "20"}}'}

    answer = client.post("/v1/detect", {"files": files, "strategy": {"memory": "256m"}})

    strategy = answer.json()["strategy"]
    assert (answer.status_code, strategy["runtime"], strategy["version"]) == (200, "node", "20")
    assert strategy["memory"] == 256 * 1024**2
    assert any("package.json" in reason for reason in strategy["reasons"])
    assert not Project.objects.exists()


def test_detection_refuses_files_of_no_known_runtime(client: APIClient) -> None:
    answer = client.post("/v1/detect", {"files": {"notes.doc": "x"}})

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["code"] == "no_runtime_detected"


def test_runtimes_are_listed_with_their_limits(client: APIClient, settings: Any) -> None:
    document = client.get("/v1/runtimes").json()

    assert {runtime["name"] for runtime in document["runtimes"]} == {"node", "bun", "python", "static"}
    assert document["limits"]["files"] == settings.MAX_FILES
