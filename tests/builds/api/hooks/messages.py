"""What builders outside send, and what is left of it."""

import io
import json
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from django.core.files.storage import default_storage
from django.db import connection

from builds.models import Artifact, Build, LogChunk
from tests.answers import body_of
from tests.builds.signing import code, send

QueueBuild = Callable[..., Build]
DOORS = ["claim", "heartbeat", "result"]
HIDDEN = "correct-horse-battery"


def of(taken: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"jobId": taken["jobId"], "fence": taken["fence"], **more}


def result(taken: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A report of success with a file and a line."""
    files = [{"name": "dist/app.js", "content": "run()"}]
    return of(taken, **{"status": "completed", "logs": "built\n", "artifacts": files, **more})


def stored(job_id: str, fence: int = 1) -> list[str]:
    with suppress(FileNotFoundError):
        return sorted(default_storage.listdir(f"{job_id}/{fence}")[1])
    return []


def assert_untouched(before: Build) -> None:
    """As it was when it was read, and nothing of a report is left."""
    build = Build.objects.get(pk=before.pk)
    state = ("status", "fence", "lease_expires_at", "verdict", "log_bytes", "usage", "progress", "phase")
    assert {name: getattr(build, name) for name in state} == {name: getattr(before, name) for name in state}
    assert not LogChunk.objects.filter(build=build).exists()
    assert not Artifact.objects.filter(build=build).exists()
    assert stored(str(build.pk), build.fence) == []


def everything(taken: dict[str, Any], door: str) -> bytes:
    return json.dumps({"claim": {}, "heartbeat": of(taken), "result": result(taken)}[door]).encode()


def files_of(answer: Any) -> dict[str, bytes]:
    assert answer.status_code == 200, answer.content
    with tarfile.open(fileobj=io.BytesIO(body_of(answer))) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def refused(taken: dict[str, Any], *, fence: int | None = None) -> tuple[int, str]:
    before = Build.objects.get(pk=taken["jobId"])
    document = result(taken) | ({"fence": fence} if fence else {})
    found = set()
    for door, message in (("result", document), ("heartbeat", {name: document[name] for name in ("jobId", "fence")})):
        answer = send(door, message)
        found.add((answer.status_code, code(answer)))
    assert_untouched(before)
    [refusal] = found
    return refusal


def at_once(count: int, send_one: Callable[[int], Any]) -> list[Any]:
    def run(number: int) -> Any:
        try:
            return send_one(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))
