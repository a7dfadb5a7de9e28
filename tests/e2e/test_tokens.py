"""Tokens are in no log and in no database, at the most verbose log settings."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installation import Installation

pytestmark = [pytest.mark.docker, pytest.mark.redis]


@pytest.fixture(scope="module")
def chatty(short_folder: Path) -> Iterator[Installation]:
    folder = short_folder / "chatty"
    folder.mkdir()
    installation = Installation(folder, LOG_LEVEL="DEBUG", WORKER_CONCURRENCY="1")
    try:
        yield installation.start()
    finally:
        installation.stop()


def test_no_token_is_ever_logged_or_stored(chatty: Installation) -> None:
    reader = chatty.make_token("reader", scope="read")
    wrong = "wrongprefix.wrongsecretwrongsecret"

    chatty.wait(chatty.submit({"index.html": "<h1>hi</h1>"}))
    for token in (chatty.token, reader, wrong):
        with chatty.client(token) as client:
            client.get("/v1/builds")
            client.post("/v1/projects", json={"files": {"../x": ""}})
            client.post("/v1/projects", content=b"{", headers={"Content-Type": "application/json"})
            client.get("/v1/builds/nothing?token=x")

    secrets = [token.partition(".")[2].encode() for token in (chatty.token, reader, wrong)]
    logs = {log.name: log.read_bytes() for log in chatty.folder.glob("*.log")}
    assert {"web.log", "workers.log", "reaper.log"} <= set(logs)
    assert b"/v1/projects" in logs["web.log"]
    stored = repr(chatty.rows("SELECT * FROM projects_apitoken")).encode()
    assert reader.partition(".")[0].encode() in stored
    for secret in secrets:
        assert [name for name, log in logs.items() if secret in log] == []
        assert secret not in stored
