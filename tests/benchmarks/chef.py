"""Chef's side of the comparison: an installation of its own, asked over HTTP as any client would."""

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
# So seldom that asking does not slow down what is asked about: the time that counts is the server's own.
POLL_SECONDS = 0.15
SUBMITTERS = 4


class BuildFailedError(Exception):
    """A build of Chef's did not complete, so its time means nothing."""


@dataclass(frozen=True)
class Timed:
    """One build: seconds from the request to `finishedAt`, and its document at the end."""

    sent_at: float
    document: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        return moment(self.document["finishedAt"]) - self.sent_at

    def stages(self) -> dict[str, float]:
        """Seconds that went by between the build's own timestamps, in order."""
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
    """An installation that is not running yet, named for this process."""
    chef = Installation(folder, WORKER_CONCURRENCY=str(workers), LOG_LEVEL="WARNING", **settings)
    chef.name = f"bench-{os.getpid()}"
    chef.environment["CHEF_INSTALLATION"] = chef.name
    return chef


def build(client: httpx.Client, workload: Workload, *, seconds: float = 600) -> Timed:
    """Have Chef make one build. Raises BuildFailedError when it does not complete within `seconds`."""
    sent_at, accepted = submit(client, workload)
    time.sleep(POLL_SECONDS)
    return Timed(sent_at, _completed(client, accepted, deadline=time.monotonic() + seconds))


def many(chef: Installation, workload: Workload, *, builds: int, seconds: float = 600) -> float:
    """Submit so many builds at once; the seconds from the first request to the end of the last build."""
    with chef.client() as client:
        with ThreadPoolExecutor(SUBMITTERS) as pool:
            sent = list(pool.map(lambda _: submit(client, workload), range(builds)))
        deadline = time.monotonic() + seconds
        # The last ones first: while they wait, nothing else is asked.
        documents = [_completed(client, accepted, deadline=deadline, every=0.5) for _, accepted in reversed(sent)]
    return _last(document["finishedAt"] for document in documents) - min(sent_at for sent_at, _ in sent)


def submit(client: httpx.Client, workload: Workload) -> tuple[float, dict[str, Any]]:
    """When the request was sent, in seconds since the epoch, and the answer to it."""
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
