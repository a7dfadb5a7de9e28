"""A client that knows only the API's documentation.

It imports no module of the product, so that what it can do is what any program can do over the wire.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

Json = dict[str, Any]

TERMINAL = frozenset({"completed", "failed", "cancelled"})
POLL_SECONDS = 0.25
# Answers are fast, but the machine may have two cores and five builds running.
REQUEST_SECONDS = 60


@dataclass(frozen=True)
class Job:
    """One submitted build, by the two ids in the answer to its submission."""

    project_id: str
    job_id: str


@dataclass(frozen=True)
class ListedArtifact:
    """One entry of a build's artifact list; the download must match it."""

    name: str
    size: int
    sha256: str
    content_type: str
    url: str


class RequestRefusedError(Exception):
    """The API refused the request. `errors`: its dicts of `code`, `detail` and `attr`."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(f"{answer.status_code}: {answer.text[:2000]}")
        self.status = answer.status_code
        self.errors: list[Json] = answer.json()["errors"]


class ChefClient:
    """A client of one installation with one token; a context manager. Every call may raise RequestRefusedError."""

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=REQUEST_SECONDS,
            verify=False,  # plain HTTP: there is no certificate to check
            trust_env=False,  # a proxy in the environment is for external hosts, not for a server on this machine
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def submit(self, body: Any) -> Job:
        """Submit a project to build; `body` as for `POST /v1/projects`."""
        return self._job(self._http.post("/v1/projects", json=body))

    def submit_raw(self, content: bytes) -> Job:
        """Submit a raw body, which need not be JSON."""
        return self._job(self._http.post("/v1/projects", content=content, headers={"Content-Type": "application/json"}))

    def build(self, job: Job) -> Json:
        return self._get(f"/v1/projects/{job.project_id}/status", jobId=job.job_id)

    def wait(self, job: Job, *, seconds: float) -> Json:
        """Wait until the build has ended. Raises TimeoutError with its last state."""
        deadline = time.monotonic() + seconds
        while (build := self.build(job))["status"] not in TERMINAL:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{build['status']} in {build['phase']} after {seconds} s: {build}")
            time.sleep(POLL_SECONDS)
        return build

    def log_page(self, job: Job, *, after: str = "", limit: int = 500) -> Json:
        query = {"jobId": job.job_id, "limit": str(limit)} | ({"after": after} if after else {})
        return self._get(f"/v1/projects/{job.project_id}/logs", **query)

    def log_pages(self, job: Job, *, limit: int = 500) -> Iterator[Json]:
        """The log's pages, until the log is complete."""
        cursor = ""
        while True:
            page = self.log_page(job, after=cursor, limit=limit)
            yield page
            if page["complete"]:
                return
            cursor = page["nextCursor"]

    def log_text(self, job: Job) -> str:
        path = f"/v1/projects/{job.project_id}/logs"
        answer = self._http.get(path, params={"jobId": job.job_id, "ansi": "strip"}, headers={"Accept": "text/plain"})
        return self._checked(answer).text

    def artifacts(self, job: Job) -> list[ListedArtifact]:
        """A build's artifacts. Raises AssertionError if the total is not the sum of the sizes."""
        listing = self._get(f"/v1/projects/{job.project_id}/artifacts", jobId=job.job_id)
        found = [
            ListedArtifact(row["name"], row["size"], row["sha256"], row["contentType"], row["url"])
            for row in listing["artifacts"]
        ]
        assert listing["totalSize"] == sum(artifact.size for artifact in found)
        return found

    def download(self, artifact: ListedArtifact) -> httpx.Response:
        return self._checked(self._http.get(artifact.url))

    def health(self) -> Json:
        return self._get("/health")

    def _get(self, path: str, **query: str) -> Json:
        answer: Json = self._checked(self._http.get(path, params=query)).json()
        return answer

    def _job(self, answer: httpx.Response) -> Job:
        accepted: Mapping[str, str] = self._checked(answer, status=201).json()
        return Job(accepted["projectId"], accepted["jobId"])

    @staticmethod
    def _checked(answer: httpx.Response, *, status: int = 200) -> httpx.Response:
        if answer.status_code != status:
            raise RequestRefusedError(answer)
        return answer
