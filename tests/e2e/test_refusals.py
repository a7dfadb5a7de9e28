"""Requests that must be refused: at once, with a code, the field and a hint, and without side effects."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.client import ChefClient, RequestRefusedError
from tests.installation import Installation, until

pytestmark = pytest.mark.once("postgresql")

MIB = 1024**2
PAGE = {"index.html": "x"}


@pytest.fixture(scope="module")
def client(chef: Installation) -> Iterator[ChefClient]:
    with ChefClient(chef.url, chef.token) as client:
        yield client


# A body, and an error that must be among those in the answer: (code, start of attr).
REFUSED: dict[str, tuple[Any, str, str]] = {
    "parent folder": ({"files": {"../x": ""}}, "invalid_path", "files.../x"),
    "absolute path": ({"files": {"/etc/x": ""}}, "invalid_path", "files./etc/x"),
    "parent folder inside": ({"files": {"a/../../x": ""}}, "invalid_path", "files.a/../../x"),
    "drive letter": ({"files": {"C:\\x": ""}}, "invalid_path", "files.C:\\x"),
    "NUL in a path": ({"files": {"a\0b": ""}}, "invalid_path", "files.a\0b"),
    "empty path": ({"files": {"": ""}}, "invalid_path", "files"),
    "hooks of version control": ({"files": {".git/hooks/x": ""}}, "invalid_path", "files..git/hooks/x"),
    "dot beside its twin": ({"files": {"./a": "", "a": ""}}, "invalid_path", "files../a"),
    "long path": ({"files": {"a" * 241: ""}}, "invalid_path", "files." + "a" * 240),
    "deep path": ({"files": {"a/" * 20 + "b": ""}}, "invalid_path", "files." + "a/" * 20 + "b"),
    "names that differ in case": ({"files": {"README": "", "readme": ""}}, "duplicate_path", "files.readme"),
    "file and folder of one name": ({"files": {"a": "", "a/b": ""}}, "duplicate_path", "files.a/b"),
    "one path twice": (
        {"files": [{"path": "a", "content": ""}, {"path": "a", "content": ""}]},
        "duplicate_path",
        "files.a",
    ),
    "large file": ({"files": {"big.bin": "x" * (MIB + 1)}}, "file_too_large", "files.big.bin"),
    "large project": ({"files": {f"{i}.txt": "x" * MIB for i in range(21)}}, "project_too_large", "files"),
    "too many files": ({"files": {f"{i}.txt": "" for i in range(1001)}}, "too_many_files", "files"),
    "no files": ({"files": {}}, "no_files", "files"),
    "nothing": ({}, "no_files", "files"),
    "files as text": ({"files": "index.html"}, "shape", "files"),
    "content that is a number": ({"files": {"index.html": 1}}, "invalid_file", "files.index.html"),
    "broken base64": (
        {"files": [{"path": "a", "content": "%%%", "encoding": "base64"}]},
        "invalid_file",
        "files.a",
    ),
    "unknown field": ({"files": PAGE, "image": "evil"}, "unknown_field", "image"),
    "unknown runtime": ({"files": PAGE, "strategy": {"runtime": "cobol"}}, "unknown_runtime", "strategy.runtime"),
    "unknown version": (
        {"files": PAGE, "strategy": {"runtime": "node", "version": "4"}},
        "unknown_version",
        "strategy.version",
    ),
    "powers of its own": ({"files": PAGE, "strategy": {"privileged": True}}, "unknown_field", "strategy.privileged"),
    "output outside": ({"files": PAGE, "strategy": {"outputs": ["../dist"]}}, "invalid_path", "strategy.outputs.0"),
    "root outside": ({"files": PAGE, "strategy": {"rootDir": "/etc"}}, "invalid_path", "strategy.rootDir"),
    "negative time": ({"files": PAGE, "strategy": {"timeout": -1}}, "min_value", "strategy.timeout"),
    "endless time": ({"files": PAGE, "strategy": {"timeout": 10**15}}, "out_of_range", "strategy.timeout"),
    "memory without end": ({"files": PAGE, "strategy": {"memory": "900g"}}, "out_of_range", "strategy.memory"),
    "CPUs that are no number": ({"files": PAGE, "strategy": {"cpus": "many"}}, "invalid", "strategy.cpus"),
    "dependency that is a path": (
        {"files": PAGE, "dependencies": {"../evil": "1"}},
        "invalid_dependency",
        "dependencies.../evil",
    ),
    "a list": ([], "invalid", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_request_is_refused_with_a_hint(client: ChefClient, name: str) -> None:
    body, code, attr = REFUSED[name]

    with pytest.raises(RequestRefusedError) as refused:
        client.submit(body)

    assert refused.value.status == 400
    errors = {(error["code"], error["attr"] or "") for error in refused.value.errors}
    assert any(code == each and place.startswith(attr) for each, place in errors), refused.value
    assert all(len(error["detail"]) > 10 for error in refused.value.errors)


def test_all_errors_are_reported_at_once(client: ChefClient) -> None:
    body = {"files": {"../x": "", "B": "", "b": ""}, "strategy": {"runtime": "cobol", "cpus": -1}, "priority": "now"}

    with pytest.raises(RequestRefusedError) as refused:
        client.submit(body)

    assert {error["attr"] for error in refused.value.errors} >= {"files.../x", "files.b", "strategy.cpus", "priority"}


@pytest.mark.parametrize(
    "content", [b'{"files": {', b"\xff\xfe", b"", b"NaN"], ids=["cut off", "no UTF-8", "empty", "NaN"]
)
def test_a_body_that_is_not_json_is_refused(client: ChefClient, content: bytes) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        client.submit_raw(content)

    assert refused.value.status == 400
    assert refused.value.errors[0]["detail"]


def test_an_oversized_body_is_refused_before_it_is_read(client: ChefClient) -> None:
    body = b'{"files": {"a": "' + b"x" * (45 * MIB) + b'"}}'

    with pytest.raises(RequestRefusedError) as refused:
        client.submit_raw(body)

    assert refused.value.status == 413
    assert "42" in refused.value.errors[0]["detail"]


def test_a_request_without_a_token_is_refused(chef: Installation) -> None:
    with ChefClient(chef.url, "") as stranger, pytest.raises(RequestRefusedError) as refused:
        stranger.submit({"files": PAGE})

    assert refused.value.status == 401
    assert "token" in refused.value.errors[0]["detail"].lower()


def test_refused_requests_leave_nothing_behind(chef: Installation, client: ChefClient) -> None:
    until(lambda: httpx.get(f"{chef.url}/health").is_success, seconds=60, what="the workers have started")
    before = client.health()["checks"]["queue"]["depth"]

    for body, _, _ in REFUSED.values():
        with pytest.raises(RequestRefusedError):
            client.submit(body)

    assert client.health()["checks"]["queue"]["depth"] <= before
    until(lambda: not chef.leftovers(), seconds=30, what="what the builds before had is gone, and nothing else came")
