"""Large and unusual bodies against a running web process."""

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from projects.files.paths import NewFile
from tests.installation import Installation
from tests.projects.files.archive_files import zip_of

pytestmark = pytest.mark.once("postgresql")

MIB = 1024**2


def in_pieces(body: bytes) -> Any:
    return (body[start : start + 1000] for start in range(0, len(body), 1000))


def test_a_body_without_content_length_is_accepted(chef: Installation) -> None:
    files = {f"page{number}.html": "<h1>hi</h1>" for number in range(500)}
    form = httpx.Request(
        "POST", chef.url, files={"archive": zip_of([NewFile(path, text.encode()) for path, text in files.items()])}
    )
    bodies = [("application/json", json.dumps({"files": files}).encode()), (form.headers["Content-Type"], form.read())]

    with chef.client() as client:
        answers = [
            client.post("/v1/detect", content=in_pieces(body), headers={"Content-Type": kind}) for kind, body in bodies
        ]

    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text + answers[1].text
    assert all("content-length" not in answer.request.headers for answer in answers)


def test_large_projects_in_sequence_leak_no_memory(chef: Installation) -> None:
    files = {f"{number}.txt": "x y" * 7_000 for number in range(990)} | {"../x": "refused"}
    body, kind = json.dumps({"files": files}).encode(), {"Content-Type": "application/json"}

    with chef.client() as client:
        before = memory_of(chef)
        answers = [client.post("/v1/detect", content=body, headers=kind) for _ in range(8)]
        after = memory_of(chef)

    assert {answer.status_code for answer in answers} == {400}
    assert after - before < 40 * MIB


def memory_of(chef: Installation) -> int:
    """The private memory of the web process, in bytes."""
    _, resident, shared, *_ = map(int, Path(f"/proc/{chef.processes['web'].pid}/statm").read_text().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
