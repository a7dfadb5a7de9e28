"""Artifacts on their way out: a list, a file, all of them as a zip."""

from collections.abc import AsyncGenerator, Generator

from django.core.files.storage import default_storage
from django.utils.text import slugify
from zipstream import ZipStream

from builds.artifacts import artifacts_of
from builds.models import Artifact, Build
from chef.web.downloads import Content
from chef.web.reading import PIECE_BYTES, file_pieces


def content_of(artifact: Artifact) -> Content:
    key = artifact.storage_key

    def read(start: int, length: int) -> AsyncGenerator[bytes]:
        # Opened before anything is sent: what the store has not is an error, and no download that is cut off.
        return file_pieces(default_storage.open(key), start, length)

    return Content(artifact.size, artifact.content_type, artifact.sha256, read, outlives_request=True)


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
