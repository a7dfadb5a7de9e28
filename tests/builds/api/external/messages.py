"""Messages that external builders send, and checks of what they changed."""

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
HOOKS = ["claim", "heartbeat", "result"]
HIDDEN = "correct-horse-battery"


def message_for(claimed: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"jobId": claimed["jobId"], "fence": claimed["fence"], **more}


def result(claimed: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A report of success with one artifact and one log line."""
    files = [{"name": "dist/app.js", "content": "run()"}]
    return message_for(claimed, **{"status": "completed", "logs": "built\n", "artifacts": files, **more})


def stored(job_id: str, fence: int = 1) -> list[str]:
    with suppress(FileNotFoundError):
        return sorted(default_storage.listdir(f"{job_id}/{fence}")[1])
    return []


def assert_untouched(before: Build) -> None:
    """Assert that the build is unchanged and that nothing of a report was stored."""
    build = Build.objects.get(pk=before.pk)
    state = ("status", "fence", "lease_expires_at", "verdict", "log_bytes", "usage", "progress", "phase")
    assert {name: getattr(build, name) for name in state} == {name: getattr(before, name) for name in state}
    assert not LogChunk.objects.filter(build=build).exists()
    assert not Artifact.objects.filter(build=build).exists()
    assert stored(str(build.pk), build.fence) == []


def body_for(claimed: dict[str, Any], hook: str) -> bytes:
    return json.dumps({"claim": {}, "heartbeat": message_for(claimed), "result": result(claimed)}[hook]).encode()


def files_of(answer: Any) -> dict[str, bytes]:
    assert answer.status_code == 200, answer.content
    with tarfile.open(fileobj=io.BytesIO(body_of(answer))) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def refused(claimed: dict[str, Any], *, fence: int | None = None) -> tuple[int, str]:
    before = Build.objects.get(pk=claimed["jobId"])
    document = result(claimed) | ({"fence": fence} if fence else {})
    found = set()
    for hook, message in (("result", document), ("heartbeat", {name: document[name] for name in ("jobId", "fence")})):
        answer = send(hook, message)
        found.add((answer.status_code, code(answer)))
    assert_untouched(before)
    [refusal] = found
    return refusal


def run_concurrently(count: int, send_one: Callable[[int], Any]) -> list[Any]:
    def run(number: int) -> Any:
        try:
            return send_one(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))
