"""Artifacts on their way out: a list, a file, all of them as a zip."""

from collections.abc import AsyncIterator, Generator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.files.storage import default_storage
from django.db.models import QuerySet
from django.utils.text import slugify
from zipstream import ZipStream

from builds.models import Artifact, Build, Status
from chef.downloads import Content

PIECE_BYTES = 1024 * 1024


def artifacts_of(build: Build) -> QuerySet[Artifact]:
    """Those of the winning attempt, once there is one."""
    rows = Artifact.objects.filter(build=build, attempt=build.fence)
    return rows if build.status == Status.COMPLETED else rows.none()


def content_of(artifact: Artifact) -> Content:
    key = artifact.storage_key

    async def read(start: int, length: int) -> AsyncIterator[bytes]:
        file: Any = await sync_to_async(default_storage.open)(key)
        try:
            await sync_to_async(file.seek)(start)
            while length > 0 and (piece := await sync_to_async(file.read)(min(length, PIECE_BYTES))):
                length -= len(piece)
                yield piece
        finally:
            await sync_to_async(file.close)()

    return Content(artifact.size, artifact.content_type, artifact.sha256, read)


def zip_of(build: Build) -> tuple[str, int, Generator[bytes]]:
    """(file name, size in bytes, pieces) of a zip of all artifacts, made while it is sent.

    Nothing is compressed: most outputs are compressed already or will be on their way, and so the size is known.
    """
    archive = ZipStream(sized=True)
    for artifact in artifacts_of(build):
        archive.add(_pieces(artifact), artifact.name, size=artifact.size)
    archive.comment = f"Build {build.pk}"
    name = f"{slugify(build.project.name) or 'project'}-{build.number}.zip"
    return name, len(archive), _all(archive)


def _all(archive: ZipStream) -> Generator[bytes]:
    yield from archive


def _pieces(artifact: Artifact) -> Generator[bytes]:
    with default_storage.open(artifact.storage_key) as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
