"""Request bodies: JSON and forms, valid and invalid. A refused request leaves nothing behind."""

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
def path(request: pytest.FixtureRequest, client: APIClient) -> str:
    """Each path that accepts files."""
    accepted = client.post("/v1/projects", {"files": {"index.html": "first"}}).json()
    return str(request.param.format(accepted["projectId"]))


@pytest.fixture(autouse=True)
def no_leftover_files(settings: Any, tmp_path: Path) -> Iterator[None]:
    """Make all uploads use temporary files, and assert after each test that none is left, named or open."""
    settings.FILE_UPLOAD_TEMP_DIR, settings.FILE_UPLOAD_MAX_MEMORY_SIZE = str(tmp_path), 1
    yield
    assert list(tmp_path.iterdir()) == []
    assert not [name for name in open_files() if name.startswith(str(tmp_path))]


def open_files() -> list[str]:
    """Names of all files that this process has open, including deleted ones."""
    names = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor of the folder itself
            names.append(os.readlink(descriptor))
    return names


def send_form(client: APIClient, path: str, archive: bytes | None = None, *, options: Any = None) -> Any:
    form = {"archive": SimpleUploadedFile("app.zip", zip_of(FILES) if archive is None else archive)}
    return client.post(path, form if options is None else {**form, "options": options}, format="multipart")


def errors(answer: Any, status: int = 400) -> list[tuple[str | None, str]]:
    """(attr, code) of each error of a refused request."""
    assert answer.status_code == status, answer.content
    return [(error["attr"], error["code"]) for error in answer.json()["errors"]]


def rows() -> list[int]:
    return [model.objects.count() for model in (Project, Revision, SourceFile, EnvironmentVariable, Build)]


# --- Forms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_becomes_the_project_s_files(client: APIClient, kind: str) -> None:
    answer = send_form(client, "/v1/projects", KINDS[kind](FILES), options='{"name": "packed", "env": {"MODE": "x"}}')

    assert answer.status_code == 201, answer.content
    project = Project.objects.get(pk=answer.json()["projectId"])
    stored_files = {file.path: (bytes(file.content), file.executable) for file in project.revisions.get().files.all()}
    assert stored_files == {file.path: (file.content, file.executable) for file in FILES}
    assert (project.name, project.variables.get().name) == ("packed", "MODE")


@pytest.mark.parametrize("options", [None, "", "{}", '{"strategy": {"outputs": ["."]}}'])
def test_options_can_be_missing_or_empty(client: APIClient, path: str, options: str | None) -> None:
    answer = send_form(client, path, options=options)

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
def test_invalid_options_are_refused(
    client: APIClient, path: str, options: str, expected: list[tuple[str, str]]
) -> None:
    before = rows()

    answer = send_form(client, path, options=options)

    assert errors(answer) == expected
    assert rows() == before


def test_options_sent_as_a_file_are_refused(client: APIClient, path: str) -> None:
    answer = send_form(client, path, options=SimpleUploadedFile("options.json", b"{}"))

    assert errors(answer) == [("options", "invalid")]


def test_all_errors_of_a_form_are_reported_at_once(client: APIClient, path: str) -> None:
    one, two = SimpleUploadedFile("a", b"1"), SimpleUploadedFile("b", b"2")

    answer = client.post(
        path, {"name": "x", "file": one, "archive": [one, two], "options": ["{}", "{}"]}, format="multipart"
    )

    expected = [("archive", "invalid"), ("file", "unknown_field"), ("name", "unknown_field"), ("options", "invalid")]
    assert sorted(errors(answer), key=str) == expected


@pytest.mark.parametrize("form", [{"options": "{}"}, {"archive": "a text"}, {"archive": ""}])
def test_a_form_without_an_archive_is_refused(client: APIClient, path: str, form: dict[str, str]) -> None:
    assert errors(client.post(path, form, format="multipart")) == [("archive", "required")]


def test_an_archive_sent_both_as_file_and_text_is_refused(client: APIClient, path: str) -> None:
    form = {"archive": [SimpleUploadedFile("app.zip", zip_of(FILES)), "a text"]}

    assert errors(client.post(path, form, format="multipart")) == [("archive", "invalid")]


@pytest.mark.parametrize("body", [b"", b"--x", b"--x\r\nContent-Disposition: form-data", b"x" * 5000])
@pytest.mark.parametrize("boundary", ["; boundary=x", "; boundary=", ""])
def test_a_malformed_form_is_refused(client: APIClient, path: str, body: Any, boundary: str) -> None:
    answer = client.generic("POST", path, body, content_type=f"multipart/form-data{boundary}")

    assert answer.status_code == 400
    assert answer.json()["errors"]


def test_a_form_with_too_many_parts_is_refused(client: APIClient, path: str) -> None:
    files = {f"f{number}": SimpleUploadedFile("a", b"1") for number in range(200)}
    fields = {f"f{number}": "1" for number in range(2000)}

    answers = [client.post(path, form, format="multipart") for form in (files, fields)]

    assert [answer.status_code for answer in answers] == [400, 400]


# --- Archives in forms -------------------------------------------------------------------------------------------


def test_an_error_inside_an_archive_names_its_path(client: APIClient, path: str) -> None:
    archive = zip_by_hand(
        Entry(b"../x"), Entry(b"link", mode=0o120777), Entry(b"a"), Entry(b"A"), Entry(b"big", bytes(1024**2 + 1))
    )
    before = rows()

    answer = send_form(client, path, archive)

    assert sorted(errors(answer), key=str) == [
        ("archive.../x", "invalid_path"),
        ("archive.A", "duplicate_path"),
        ("archive.big", "file_too_large"),
        ("archive.link", "unsafe_member"),
    ]
    assert rows() == before


@pytest.mark.parametrize("archive", [b"", b"x", zip_of(FILES)[:-9], gzip.compress(tar_of(FILES))[:-9]])
def test_an_error_of_the_whole_archive_names_no_path(client: APIClient, path: str, archive: bytes) -> None:
    assert errors(send_form(client, path, archive)) == [("archive", "invalid_archive")]


def test_an_archive_without_files_is_refused(client: APIClient, path: str) -> None:
    assert errors(send_form(client, path, zip_of([]))) == [("files", "no_files")]


def test_errors_of_archive_and_options_are_reported_at_once(client: APIClient, path: str) -> None:
    answer = send_form(client, path, b"x", options='{"strategy": {"runtime": "cobol"}, "colour": 1}')

    assert {attr for attr, _ in errors(answer)} == {"archive", "strategy.runtime", "colour"}


def test_a_project_with_an_invalid_environment_leaves_nothing(client: APIClient) -> None:
    answer = send_form(client, "/v1/projects", options='{"env": {"LD_PRELOAD": "x"}}')

    assert [attr for attr, _ in errors(answer)] == ["env.LD_PRELOAD"]
    assert rows() == [0, 0, 0, 0, 0]


def test_an_archive_for_another_user_s_project_is_not_read(client: APIClient, other: User, queue_build: Any) -> None:
    project = queue_build(by=other).project_id

    answer = send_form(client, f"/v1/projects/{project}/revisions", b"x")

    assert errors(answer, 404) == [(None, "not_found")]


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
def test_invalid_or_oversized_json_is_refused(client: APIClient, path: str, body: Any) -> None:
    before = rows()

    answer = client.generic("POST", path, body, content_type=JSON)

    assert errors(answer) == [(None, "parse_error")]
    assert rows() == before


@pytest.mark.parametrize("body", ["[]", "null", "1", '"files"', "true"])
def test_a_document_that_is_not_an_object_is_refused(client: APIClient, path: str, body: str) -> None:
    answer = client.generic("POST", path, body, content_type=JSON)

    assert [code for _, code in errors(answer)] in (["invalid"], ["not_a_dict"], ["null"])


def test_brackets_and_commas_in_strings_are_not_counted_as_values(client: APIClient, path: str) -> None:
    text = '[{,"\\' * MAX_TOKENS

    answer = client.post(path, {"files": {"index.html": "x", "data.txt": text[: 1024**2]}})

    assert answer.status_code in {200, 201}, answer.content


@pytest.mark.parametrize("name", ["files", "dependencies", "strategy", "archive", "unknown"])
def test_a_deeply_nested_field_is_refused(client: APIClient, path: str, name: str) -> None:
    body = f'{{"{name}": {"[" * 1000}{"]" * 1000}}}'

    answer = client.generic("POST", path, body, content_type=JSON)

    assert errors(answer)


def test_an_empty_body_is_an_empty_object(client: APIClient, path: str) -> None:
    answer = client.generic("POST", path, "", content_type=JSON)

    assert errors(answer) == [("files", "no_files")]


def test_files_together_with_an_archive_string_are_refused(client: APIClient, path: str) -> None:
    answer = client.post(path, {"files": {"index.html": "x"}, "archive": "UEsDBA=="})

    assert errors(answer) == [("archive", "shape")]


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/zip", "application/xml", "nonsense"],
)
def test_another_content_type_is_refused(client: APIClient, path: str, content_type: str) -> None:
    answer = client.generic("POST", path, json.dumps({"files": {"index.html": "x"}}), content_type=content_type)

    assert errors(answer, 415) == [(None, "unsupported_media_type")]


def test_a_form_is_refused_by_endpoints_without_files(client: APIClient) -> None:
    project = client.post("/v1/projects", {"files": {"index.html": "x"}}).json()["projectId"]
    path = f"/v1/projects/{project}"

    answers = [client.patch(path, {"name": "x"}, format="multipart"), send_form(client, f"{path}/builds")]

    assert [errors(answer, 415) for answer in answers] == [[(None, "unsupported_media_type")]] * 2
