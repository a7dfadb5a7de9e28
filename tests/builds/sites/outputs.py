"""Completed builds without a sandbox, and requests to their sites."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from builds.artifacts import media_type
from builds.models import Artifact, Build
from builds.queue.claims import claim
from chef.asgi import application
from chef.jobs.models import Status


def complete(build: Build, files: Mapping[str, str | bytes], *, outputs: Sequence[str]) -> Build:
    """Claim the build, which must be the only queued one, and complete it with these artifacts."""
    lease = claim("worker")
    assert lease
    assert lease.build.pk == build.pk
    for number, (name, content) in enumerate(files.items()):
        data = content.encode() if isinstance(content, str) else content
        Artifact.objects.create(
            build=build,
            attempt=lease.fence,
            name=name,
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            content_type=media_type(name),
            storage_key=default_storage.save(f"{build.pk}/{lease.fence}/{number}", ContentFile(data)),
        )
    lease.end(Status.COMPLETED, plan={"outputs": list(outputs)})
    build.refresh_from_db()
    return build


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def ask(host: str, path: str = "/", *, method: str = "GET", query: str = "", **headers: str) -> Answer:
    """The web process's answer to one request to a host."""
    sent: list[dict[str, Any]] = []
    raw = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"host", host.encode()), *raw],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 3001),
    }

    arriving = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if not arriving:
            await asyncio.Event().wait()  # it stays
        return arriving.pop()

    async def keep(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(application(scope, receive, keep))
    start, *rest = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], headers, b"".join(message.get("body", b"") for message in rest))
