"""Query counts stay the same when there is more data."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from builds import actions
from builds.models import Artifact, Attempt, Build, BuildEvent, LogChunk, PhaseName, PhaseRun
from builds.queue import forecast
from chef.jobs.models import Status
from projects.files.paths import NewFile
from tests.answers import body_of

pytestmark = pytest.mark.slow

TEXT = "text/plain"


@pytest.fixture
def build(queue_build: Callable[..., Build]) -> Build:
    """The build that is requested: completed, and the first of its project."""
    return completed(queue_build())


def completed(build: Build) -> Build:
    now = timezone.now()
    Build.objects.filter(pk=build.pk).update(
        status=Status.COMPLETED, fence=2, runtime="node", started_at=now, finished_at=now
    )
    add_rows(build, count=1)
    return build


def add_rows(build: Build, *, count: int) -> None:
    """Add to a build: attempts (the second is current), phases, events, log chunks, artifacts."""
    done = {"status": "completed", "started_at": timezone.now(), "finished_at": timezone.now()}
    for number in range(1, 3):
        attempt, _ = Attempt.objects.get_or_create(build=build, number=number, defaults={"worker": "w"})
        for name in list(PhaseName)[: count + 1]:
            PhaseRun.objects.get_or_create(attempt=attempt, name=name, defaults=done)
    first = LogChunk.objects.filter(build=build).count() + 1
    row: dict[str, Any] = {"build": build, "attempt": 2}
    shown: dict[str, Any] = {**row, "phase": "build", "stream": "stdout", "timestamp": timezone.now()}
    artifact = {**row, "size": 1, "sha256": "0" * 64, "content_type": "text/plain"}
    LogChunk.objects.bulk_create(LogChunk(**shown, sequence=first + n, text=f"line {n}\n") for n in range(50 * count))
    Artifact.objects.bulk_create(Artifact(**artifact, name=f"dist/{first + n}", storage_key="x") for n in range(count))
    BuildEvent.objects.bulk_create(BuildEvent(build=build, kind="phase", fence=2) for _ in range(count))


def add_more(build: Build, owner: User, queue_build: Callable[..., Build]) -> None:
    """Make everything six times as much: builds of this and other projects, half of them queued, and revisions."""
    add_rows(build, count=5)
    for number in range(5):
        files = [NewFile(f"{index}.html", b"<h1>hi</h1>") for index in range(5)]
        queued = actions.submit_revision(build.project, by=owner, files=files, dependencies={}, strategy={})
        completed(queue_build(name=f"other {number}"))
        queue_build(name=f"waiting {number}")
        if number:
            completed(queued)


def request_of(client: APIClient, path: str, accept: str) -> tuple[list[str], bytes]:
    """The queries of a request, and the answer's body."""
    forecast.forget()
    with CaptureQueriesContext(connection) as queries:
        answer = client.get(path, headers={"Accept": accept})
        body = body_of(answer)
    assert answer.status_code == 200, body
    return [query["sql"] for query in queries.captured_queries], body


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("/v1/projects", ""),
        ("/v1/projects/{project}/status?jobId={build}", ""),
        ("/v1/projects/{project}/revisions", ""),
        ("/v1/projects/{project}/artifacts?jobId={build}", ""),
        ("/v1/projects/{project}/logs?jobId={build}", ""),
        ("/v1/projects/{project}/logs?jobId={build}", TEXT),
        ("/v1/builds", ""),
        ("/v1/builds?status=completed", ""),
        ("/v1/builds?project={project}", ""),
        ("/v1/builds?runtime=node", ""),
        ("/v1/builds?runtime=node&project={project}", ""),
        ("/v1/builds/{build}", ""),
        ("/v1/builds/{build}/logs", ""),
        ("/v1/builds/{build}/logs?ansi=strip", TEXT),
        ("/", ""),
        ("/builds/{build}", ""),
    ],
)
def test_more_rows_need_no_more_queries(
    owner: User, make_client: Any, queue_build: Callable[..., Build], build: Build, path: str, accept: str
) -> None:
    client = make_client(owner)
    client.force_login(owner)  # for the pages
    actions.queue_build(build.revision, by=owner)  # with a build in the queue, a list also computes a forecast
    address = path.format(project=build.project_id, build=build.pk)
    request_of(client, address, accept)  # fill the caches

    few, short = request_of(client, address, accept)
    add_more(build, owner, queue_build)
    many, long = request_of(client, address, accept)

    assert len(long) > len(short)
    assert len(many) == len(few), "\n".join(many)


@pytest.mark.parametrize("path", ["/v1/projects/{project}", "/v1/projects/{project}/revisions/1/archive"])
def test_more_related_rows_need_no_more_queries(
    owner: User, make_client: Any, queue_build: Callable[..., Build], build: Build, path: str
) -> None:
    client = make_client(owner)
    address = path.format(project=build.project_id)
    request_of(client, address, "")

    few, _ = request_of(client, address, "")
    add_more(build, owner, queue_build)
    many, _ = request_of(client, address, "")

    assert len(many) == len(few), "\n".join(many)
