"""The running API against its own schema: generated requests, valid and invalid, and all checks on the answers."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from django.urls import resolve

from tests.builds.signing import SECRET, signed
from tests.installation import Installation, until

pytestmark = [pytest.mark.once("postgresql"), pytest.mark.docker, pytest.mark.redis]

# Rules that a schema cannot express, so that a request that is valid by it may still be refused: whether files form a
# buildable project, whether variables may be set, whether a cursor is genuine, where a URL leads, which of two times is
# later; and whether a reported result's status matches the rest.
_SOURCES = ["createProject", "addRevision", "detect", "changeProject", "reportResult"]
_LISTS = [
    "listProjects",
    "listBuilds",
    "listRevisions",
    "listGenerations",
    "listReleases",
    "listWebhooks",
    "listDeliveries",
]
_WEBHOOKS = ["createWebhook", "changeWebhook", "replayDeliveries"]
_ACCEPTED = ["2xx", "3xx", "401", "403", "404", "409", "422", "429"]
JSON = {"Content-Type": "application/json"}
# No sender runs, so messages wait, which /health would report as an error after a minute: pretend that one does.
SENDER_ELSEWHERE = """
from datetime import timedelta
from django.utils import timezone
from builds.models import Heartbeat
Heartbeat.objects.create(service="sender", host="elsewhere", seen_at=timezone.now() + timedelta(hours=1))
"""
NODE = {"runtime": "node", "buildCommand": "mkdir dist && echo built && echo '<h1>hi</h1>' > dist/index.html"}


@pytest.fixture(scope="module")
def api(short_folder: Path) -> Iterator[Installation]:
    """Its own installation: these requests keep the worker busy, and would use up the shared one's rate limits."""
    folder = short_folder / "schema"
    folder.mkdir()
    unlimited = {"CHEF_RATE_READ": "0", "CHEF_RATE_WRITE": "0", "CHEF_RATE_ANONYMOUS": "0"}
    # An unreachable model without retries: generations are accepted, and fail at once.
    model = {"AI_PROVIDER": "openai", "AI_BASE_URL": "http://127.0.0.1:1/v1", "AI_TRIES": "1", "GENERATE_WAIT": "0"}
    few = {"WORKER_CONCURRENCY": "1", "GENERATION_CONCURRENCY": "1", "CHEF_WORKER_SECRET": SECRET}
    installation = Installation(folder, CHEF_OWNER_MAX_QUEUED="5000", **few, **unlimited, **model)
    try:
        installation.start()
        installation.manage("shell", "-c", SENDER_ELSEWHERE)
        yield installation
    finally:
        installation.stop()


def test_requests_generated_from_the_schema_find_no_error(api: Installation, tmp_path: Path) -> None:
    done, doomed = api.wait(api.submit({"index.js": ""}, strategy=NODE)), api.submit({"index.html": "<h1>bye</h1>"})
    assert done["status"] == "completed"
    failed, webhooks = _failed_generation(api), [_webhook(api), _webhook(api)]
    kept, ended = _claimed(api), _claimed(api)
    config, report = tmp_path / "schemathesis.toml", tmp_path / "report.har"
    config.write_text(_config(done, doomed, failed, kept, webhooks))

    argv = [str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(config), "run"]
    argv += [f"{api.url}/v1/schema", "--url", api.url, "--header", f"Authorization: Bearer {api.token}"]
    argv += ["--checks=all", "--phases=examples,coverage,fuzzing", "--max-examples=5", "--generation-deterministic"]
    argv += ["--no-color", "--warnings=off", "--report-har-path", str(report)]
    hooks = {"SCHEMATHESIS_HOOKS": str(Path(__file__).parent / "schema_hooks.py"), "CHEF_WORKER_SECRET": SECRET}
    hooks["CLAIMED_BUILDS"] = f"heartbeat {kept['jobId']},result {ended['jobId']}"
    run = subprocess.run(argv, cwd=tmp_path, env=os.environ | hooks, capture_output=True, text=True, timeout=300)

    assert run.returncode == 0, run.stdout[-12_000:] + run.stderr[-2000:]
    assert _operations_that_succeeded(report) == _operations_of_schema(api)


def _operations_of_schema(api: Installation) -> set[str]:
    paths = api.get("/v1/schema")["paths"]
    return {f"{method} {path}" for path, operations in paths.items() for method in operations}


def _operations_that_succeeded(report: Path) -> set[str]:
    """Operations that were answered with success at least once: checking only refusals would prove little."""
    found = set()
    for entry in json.loads(report.read_text())["log"]["entries"]:
        if entry["response"]["status"] < 300:
            route = resolve(unquote(urlsplit(entry["request"]["url"]).path)).route
            path = re.sub(r"<(?:[a-z]+:)?([a-z]+)>", r"{\1}", route).replace("{pk}", "{id}")
            found.add(f"{entry['request']['method'].lower()} /{path}")
    return found


def _failed_generation(api: Installation) -> str:
    with api.client() as client:
        asked = client.post("/v1/generate", json={"prompt": "A page"})
    assert asked.status_code == 202, asked.text
    path = f"/v1/generations/{asked.json()['generationId']}"
    until(lambda: api.get(path)["status"] == "failed", seconds=30, what="a generation without a model fails")
    return str(asked.json()["generationId"])


def _claimed(api: Installation) -> dict[str, Any]:
    """A build claimed by an external builder."""
    api.submit({"index.html": "<h1>hi</h1>"}, queue="external")
    with api.client() as client:
        answer = client.post("/v1/hooks/worker-claim", content=b"{}", headers={**signed(b"{}"), **JSON})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def _webhook(api: Installation) -> dict[str, Any]:
    """A webhook with a delivery, which is not sent: no sender runs."""
    with api.client() as client:
        made = client.post("/v1/webhooks", json={"url": "https://example.com/", "events": ["build.failed"]})
        assert made.status_code == 201, made.text
        tested = client.post(f"/v1/webhooks/{made.json()['webhookId']}/test")
    assert tested.status_code == 202, tested.text
    return {"id": made.json()["webhookId"], "delivery": tested.json()["deliveryId"]}


def _config(
    done: dict[str, Any], doomed: dict[str, Any], failed: str, kept: dict[str, Any], webhooks: list[dict[str, Any]]
) -> str:
    """Schemathesis settings with ids of existing objects, so that requests get past 404."""
    artifact = "dist/index.html"
    of_project = {"id": done["projectId"], "number": 1, "path": "index.js", "name": artifact}
    of_project["query.jobId"] = done["jobId"]
    parts = [
        "request-timeout = 20\n[checks]\npositive_data_acceptance.expected-statuses = " + repr(_ACCEPTED),
        _operations("include-path-regex", "^/v1/projects/", of_project),
        _operations("include-path-regex", "^/v1/builds/", {"id": done["jobId"]}),
        _operations("include-path-regex", "^/v1/generations/", {"id": failed}),
        _operations("include-path-regex", "^/v1/webhooks/", webhooks[0]),
        _operations("include-operation-id", "deleteProject", {"id": doomed["projectId"]}),
        _operations("include-operation-id", "getClaimedArchive", {"token": kept["archive"]["url"].rpartition("/")[2]}),
        _operations("include-operation-id", "deleteWebhook", {"id": webhooks[1]["id"]}),
    ]
    # An unknown header is not an error, even if the schema describes the known ones.
    for name in ("watchBuild", "watchGeneration"):
        parts.append(_operations("include-operation-id", name, {}))
        parts.append("checks.negative_data_rejection.expected-statuses = " + repr(["2xx", "4xx"]))
    for name in _SOURCES + _LISTS + _WEBHOOKS:
        parts.append(_operations("include-operation-id", name, {}))
        parts.append("checks.positive_data_acceptance.expected-statuses = " + repr([*_ACCEPTED, "400"]))
    return "\n".join(parts) + "\n"


def _operations(kind: str, which: str, values: dict[str, Any]) -> str:
    named = {name if "." in name else f"path.{name}": value for name, value in values.items()}
    parameters = ", ".join(f'"{name}" = {json.dumps(value)}' for name, value in named.items())
    return f'[[operations]]\n{kind} = "{which}"\n' + (f"parameters = {{ {parameters} }}" if values else "")
