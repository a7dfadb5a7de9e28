"""Chef's side of the comparison: a separate installation, used over HTTP like any client would."""

import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from tests.benchmarks.workloads import Workload
from tests.installation import Installation

ENDED = {"completed", "failed", "cancelled"}
# Rare enough not to slow down the build; the result uses the server's own timestamps.
POLL_SECONDS = 0.15
SUBMITTERS = 4


class BuildFailedError(Exception):
    """A build did not complete, so its time means nothing."""


@dataclass(frozen=True)
class Timed:
    """One build: seconds from the request to `finishedAt`, and its final document."""

    sent_at: float
    document: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        return moment(self.document["finishedAt"]) - self.sent_at

    def stages(self) -> dict[str, float]:
        """Seconds between the build's own timestamps, in order."""
        document = self.document
        marks = [("request", moment(document["createdAt"])), ("claim", moment(document["startedAt"]))]
        marks += [(phase["name"], moment(phase["finishedAt"])) for phase in document["phases"]]
        marks.append(("end", moment(document["finishedAt"])))
        starts = [self.sent_at, *(at for _, at in marks)]
        return {name: at - start for (name, at), start in zip(marks, starts, strict=False)}


def moment(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()


def install(folder: Path, *, workers: int, **settings: str) -> Installation:
    """An installation that is not started yet, named after this process."""
    chef = Installation(folder, WORKER_CONCURRENCY=str(workers), LOG_LEVEL="WARNING", **settings)
    chef.name = f"bench-{os.getpid()}"
    chef.environment["CHEF_INSTALLATION"] = chef.name
    return chef


def build(client: httpx.Client, workload: Workload, *, seconds: float = 600) -> Timed:
    """Run one build in Chef. Raises BuildFailedError if it does not complete within `seconds`."""
    sent_at, accepted = submit(client, workload)
    time.sleep(POLL_SECONDS)
    return Timed(sent_at, _completed(client, accepted, deadline=time.monotonic() + seconds))


def many(chef: Installation, workload: Workload, *, builds: int, seconds: float = 600) -> float:
    """Submit `builds` builds at once; returns seconds from the first request to the end of the last build."""
    with chef.client() as client:
        with ThreadPoolExecutor(SUBMITTERS) as pool:
            sent = list(pool.map(lambda _: submit(client, workload), range(builds)))
        deadline = time.monotonic() + seconds
        # Poll the last ones first: while they run, no other requests are sent.
        documents = [_completed(client, accepted, deadline=deadline, every=0.5) for _, accepted in reversed(sent)]
    return _last(document["finishedAt"] for document in documents) - min(sent_at for sent_at, _ in sent)


def submit(client: httpx.Client, workload: Workload) -> tuple[float, dict[str, Any]]:
    """When the request was sent, in seconds since the epoch, and its answer."""
    body = workload.body()
    sent_at = time.time()
    answer = client.post("/v1/projects", json=body)
    if answer.status_code != 201:
        raise BuildFailedError(f"{answer.status_code}: {answer.text[:500]}")
    return sent_at, answer.json()


def _completed(
    client: httpx.Client, accepted: Mapping[str, Any], *, deadline: float, every: float = POLL_SECONDS
) -> dict[str, Any]:
    path = f"/v1/projects/{accepted['projectId']}/status?jobId={accepted['jobId']}"
    while (document := client.get(path).raise_for_status().json())["status"] not in ENDED:
        if time.monotonic() > deadline:
            break
        time.sleep(every)
    if document["status"] != "completed":
        raise BuildFailedError(f"build {accepted['jobId']} is {document['status']}: {document.get('verdict')}")
    return dict(document)


def _last(times: Iterable[str]) -> float:
    return max(moment(text) for text in times)
