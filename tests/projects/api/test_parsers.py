"""Bodies of requests as they come in: JSON and forms, good and bad. What is refused leaves nothing behind."""

import contextlib
import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.test import APIClient

from builds.models import Build
from projects.api.parsers import MAX_TOKENS
from projects.models import EnvironmentVariable, Project, Revision, SourceFile
from tests.projects.files.archive_files import KINDS, Entry, tar_of, zip_by_hand, zip_of
from tests.projects.files.test_archives import FILES

pytestmark = pytest.mark.once("postgresql")

MakeClient = Callable[..., APIClient]
JSON = "application/json"


@pytest.fixture
def client(owner: User, make_client: MakeClient) -> APIClient:
    return make_client(owner)


@pytest.fixture(params=["/v1/projects", "/v1/projects/{}/revisions", "/v1/detect"])
def door(request: pytest.FixtureRequest, client: APIClient) -> str:
    """Each path that takes files."""
    accepted = client.post("/v1/projects", {"files": {"index.html": "first"}}).json()
    return str(request.param.format(accepted["projectId"]))


@pytest.fixture(autouse=True)
def nothing_is_left_on_disk(settings: Any, tmp_path: Path) -> Iterator[None]:
    """Uploads of any size go through temporary files here: none ever has a name, and after each test none is open."""
    settings.FILE_UPLOAD_TEMP_DIR, settings.FILE_UPLOAD_MAX_MEMORY_SIZE = str(tmp_path), 1
    yield
    assert list(tmp_path.iterdir()) == []
    assert not [name for name in open_files() if name.startswith(str(tmp_path))]


def open_files() -> list[str]:
    """Names of all files that this process has open; those of deleted ones too."""
    names = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the folder itself
            names.append(os.readlink(descriptor))
    return names


def send_form(client: APIClient, path: str, archive: bytes | None = None, *, options: Any = None) -> Any:
    form = {"archive": SimpleUploadedFile("app.zip", zip_of(FILES) if archive is None else archive)}
    return client.post(path, form if options is None else {**form, "options": options}, format="multipart")


def faults(answer: Any, status: int = 400) -> list[tuple[str | None, str]]:
    """Where and what, of a refused request."""
    assert answer.status_code == status, answer.content
    return [(error["attr"], error["code"]) for error in answer.json()["errors"]]


def rows() -> list[int]:
    return [model.objects.count() for model in (Project, Revision, SourceFile, EnvironmentVariable, Build)]


# --- Forms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_becomes_a_project_s_files(client: APIClient, kind: str) -> None:
    answer = send_form(client, "/v1/projects", KINDS[kind](FILES), options='{"name": "packed", "env": {"MODE": "x"}}')

    assert answer.status_code == 201, answer.content
    project = Project.objects.get(pk=answer.json()["projectId"])
    kept = {file.path: (bytes(file.content), file.executable) for file in project.revisions.get().files.all()}
    assert kept == {file.path: (file.content, file.executable) for file in FILES}
    assert (project.name, project.variables.get().name) == ("packed", "MODE")


@pytest.mark.parametrize("options", [None, "", "{}", '{"strategy": {"outputs": ["."]}}'])
def test_options_may_be_missing_or_empty(client: APIClient, door: str, options: str | None) -> None:
    answer = send_form(client, door, options=options)

    assert answer.status_code in {200, 201}, answer.content


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("no JSON", [("options", "invalid")]),
        ('{"strategy": {"cpus": NaN}}', [("options", "invalid")]),
        ("{" * 2000, [("options", "invalid")]),
        (f"[{'0,' * MAX_TOKENS}0]", [("options", "invalid")]),
        ("[]", [("options", "not_a_dict")]),
        ("null", [("options", "not_a_dict")]),
        ('"text"', [("options", "not_a_dict")]),
        ('{"colour": "red"}', [("colour", "unknown_field")]),
        ('{"archive": "other.zip"}', [("archive", "shape")]),
        ('{"files": {"index.html": "x"}}', [("files", "files_and_archive")]),
    ],
)
def test_options_that_are_not_an_object_of_known_fields_are_refused(
    client: APIClient, door: str, options: str, expected: list[tuple[str, str]]
) -> None:
    before = rows()

    answer = send_form(client, door, options=options)

    assert faults(answer) == expected
    assert rows() == before


def test_options_sent_as_a_file_are_refused(client: APIClient, door: str) -> None:
    answer = send_form(client, door, options=SimpleUploadedFile("options.json", b"{}"))

    assert faults(answer) == [("options", "invalid")]


def test_all_that_is_wrong_with_a_form_is_told_at_once(client: APIClient, door: str) -> None:
    one, two = SimpleUploadedFile("a", b"1"), SimpleUploadedFile("b", b"2")

    answer = client.post(
        door, {"name": "x", "file": one, "archive": [one, two], "options": ["{}", "{}"]}, format="multipart"
    )

    expected = [("archive", "invalid"), ("file", "unknown_field"), ("name", "unknown_field"), ("options", "invalid")]
    assert sorted(faults(answer), key=str) == expected


@pytest.mark.parametrize("form", [{"options": "{}"}, {"archive": "a text"}, {"archive": ""}])
def test_a_form_without_an_archive_is_refused(client: APIClient, door: str, form: dict[str, str]) -> None:
    assert faults(client.post(door, form, format="multipart")) == [("archive", "required")]


def test_an_archive_that_is_there_as_a_file_and_as_text_is_refused(client: APIClient, door: str) -> None:
    form = {"archive": [SimpleUploadedFile("app.zip", zip_of(FILES)), "a text"]}

    assert faults(client.post(door, form, format="multipart")) == [("archive", "invalid")]


@pytest.mark.parametrize("body", [b"", b"--x", b"--x\r\nContent-Disposition: form-data", b"x" * 5000])
@pytest.mark.parametrize("boundary", ["; boundary=x", "; boundary=", ""])
def test_a_form_that_cannot_be_read_is_refused(client: APIClient, door: str, body: Any, boundary: str) -> None:
    answer = client.generic("POST", door, body, content_type=f"multipart/form-data{boundary}")

    assert answer.status_code == 400
    assert answer.json()["errors"]


def test_a_form_of_very_many_parts_is_refused(client: APIClient, door: str) -> None:
    files = {f"f{number}": SimpleUploadedFile("a", b"1") for number in range(200)}
    fields = {f"f{number}": "1" for number in range(2000)}

    answers = [client.post(door, form, format="multipart") for form in (files, fields)]

    assert [answer.status_code for answer in answers] == [400, 400]


# --- Archives in forms -------------------------------------------------------------------------------------------


def test_a_fault_within_an_archive_is_told_by_its_path(client: APIClient, door: str) -> None:
    archive = zip_by_hand(
        Entry(b"../x"), Entry(b"link", mode=0o120777), Entry(b"a"), Entry(b"A"), Entry(b"big", bytes(1024**2 + 1))
    )
    before = rows()

    answer = send_form(client, door, archive)

    assert sorted(faults(answer), key=str) == [
        ("archive.../x", "invalid_path"),
        ("archive.A", "duplicate_path"),
        ("archive.big", "file_too_large"),
        ("archive.link", "unsafe_member"),
    ]
    assert rows() == before


@pytest.mark.parametrize("archive", [b"", b"x", zip_of(FILES)[:-9], gzip.compress(tar_of(FILES))[:-9]])
def test_a_fault_of_an_archive_as_a_whole_is_told_without_a_path(client: APIClient, door: str, archive: bytes) -> None:
    assert faults(send_form(client, door, archive)) == [("archive", "invalid_archive")]


def test_an_archive_without_files_leaves_nothing_to_build(client: APIClient, door: str) -> None:
    assert faults(send_form(client, door, zip_of([]))) == [("files", "no_files")]


def test_faults_of_an_archive_and_of_the_options_are_told_at_once(client: APIClient, door: str) -> None:
    answer = send_form(client, door, b"x", options='{"strategy": {"runtime": "cobol"}, "colour": 1}')

    assert {attr for attr, _ in faults(answer)} == {"archive", "strategy.runtime", "colour"}


def test_a_project_that_is_refused_for_its_environment_leaves_nothing(client: APIClient) -> None:
    answer = send_form(client, "/v1/projects", options='{"env": {"LD_PRELOAD": "x"}}')

    assert [attr for attr, _ in faults(answer)] == ["env.LD_PRELOAD"]
    assert rows() == [0, 0, 0, 0, 0]


def test_an_archive_for_someone_else_s_project_is_not_even_read(
    client: APIClient, other: User, queue_build: Any
) -> None:
    project = queue_build(by=other).project_id

    answer = send_form(client, f"/v1/projects/{project}/revisions", b"x")

    assert faults(answer, 404) == [(None, "not_found")]


# --- JSON --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "nonsense",
        '{"files": {"a": "x"},}',
        '{"files": {"a": "x"}} {}',
        '{"strategy": {"cpus": NaN}}',
        '{"strategy": {"cpus": Infinity}}',
        '{"files": {"a": "\\ud800"}}',
        '{"files": {"a": "tab\tin a text"}}',
        "{'files': {}}",
        b'{"files": {"a": "\xff"}}',
        '{"files": {"a": "x"}}'.encode("utf-16"),
        '{"a":' * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"files": [' + "0," * MAX_TOKENS + "0]}",
        '{"files": {' + ",".join(f'"{number}":""' for number in range(MAX_TOKENS + 1)) + "}}",
    ],
    ids=lambda body: str(body)[:24],
)
def test_what_is_no_json_or_too_much_of_it_is_refused(client: APIClient, door: str, body: Any) -> None:
    before = rows()

    answer = client.generic("POST", door, body, content_type=JSON)

    assert faults(answer) == [(None, "parse_error")]
    assert rows() == before


@pytest.mark.parametrize("body", ["[]", "null", "1", '"files"', "true"])
def test_a_document_that_is_no_object_is_refused(client: APIClient, door: str, body: str) -> None:
    answer = client.generic("POST", door, body, content_type=JSON)

    assert [code for _, code in faults(answer)] in (["invalid"], ["not_a_dict"], ["null"])


def test_brackets_and_commas_in_texts_are_no_values(client: APIClient, door: str) -> None:
    text = '[{,"\\' * MAX_TOKENS

    answer = client.post(door, {"files": {"index.html": "x", "data.txt": text[: 1024**2]}})

    assert answer.status_code in {200, 201}, answer.content


@pytest.mark.parametrize("name", ["files", "dependencies", "strategy", "archive", "unknown"])
def test_a_field_that_is_nested_as_deep_as_json_goes_is_refused(client: APIClient, door: str, name: str) -> None:
    body = f'{{"{name}": {"[" * 1000}{"]" * 1000}}}'

    answer = client.generic("POST", door, body, content_type=JSON)

    assert faults(answer)


def test_an_empty_body_is_an_empty_object(client: APIClient, door: str) -> None:
    answer = client.generic("POST", door, "", content_type=JSON)

    assert faults(answer) == [("files", "no_files")]


def test_files_beside_an_archive_that_is_a_text_are_refused(client: APIClient, door: str) -> None:
    answer = client.post(door, {"files": {"index.html": "x"}, "archive": "UEsDBA=="})

    assert faults(answer) == [("archive", "shape")]


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/zip", "application/xml", "nonsense"],
)
def test_another_kind_of_body_is_refused(client: APIClient, door: str, content_type: str) -> None:
    answer = client.generic("POST", door, json.dumps({"files": {"index.html": "x"}}), content_type=content_type)

    assert faults(answer, 415) == [(None, "unsupported_media_type")]


def test_a_form_is_refused_where_there_are_no_files_to_send(client: APIClient) -> None:
    project = client.post("/v1/projects", {"files": {"index.html": "x"}}).json()["projectId"]
    path = f"/v1/projects/{project}"

    answers = [client.patch(path, {"name": "x"}, format="multipart"), send_form(client, f"{path}/builds")]

    assert [faults(answer, 415) for answer in answers] == [[(None, "unsupported_media_type")]] * 2
