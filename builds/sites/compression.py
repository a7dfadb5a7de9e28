"""Compresses a site's files once, when it is published."""

import gzip
import logging
from collections.abc import Iterable, Iterator

import brotli
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from builds.models import Artifact, EncodedArtifact
from chef.storage.deletion import discard_keys

logger = logging.getLogger(__name__)

LEAST_BYTES, MOST_BYTES = 512, 10 * 1024**2
# The most that is compressed, so that publishing takes seconds at most; other files are served uncompressed.
MOST_TOGETHER = 64 * 1024**2
# The larger the site, the lower the quality: (up to this many bytes, brotli quality).
_QUALITIES = ((1024**2, 11), (8 * 1024**2, 9), (MOST_TOGETHER, 5))
_WORTH_IT = 0.95
_KINDS = frozenset(
    f"application/{kind}"
    for kind in ("javascript", "json", "xml", "manifest+json", "wasm", "ld+json", "rss+xml", "atom+xml", "xhtml+xml")
) | {"image/svg+xml", "image/bmp", "font/ttf", "font/otf"}


def compress(artifacts: Iterable[Artifact]) -> None:
    """Store compressed forms of files that have none yet. A form that cannot be stored is left out."""
    todo = list(_worth_trying(artifacts))
    total = sum(artifact.size for artifact in todo)
    quality = next(quality for most, quality in _QUALITIES if total <= most)
    for artifact in todo:
        _compress(artifact, quality)


def _worth_trying(artifacts: Iterable[Artifact]) -> Iterator[Artifact]:
    left = MOST_TOGETHER
    for artifact in artifacts:
        is_text = artifact.content_type.startswith("text/") or artifact.content_type in _KINDS
        if is_text and LEAST_BYTES <= artifact.size <= min(MOST_BYTES, left):
            left -= artifact.size
            yield artifact


def _compress(artifact: Artifact, quality: int) -> None:
    try:
        with default_storage.open(artifact.storage_key) as file:
            data = file.read()
        _keep(artifact, EncodedArtifact.Encoding.BROTLI, brotli.compress(data, quality=quality))
        _keep(artifact, EncodedArtifact.Encoding.GZIP, gzip.compress(data, 9, mtime=0))
    except OSError as fault:
        logger.warning("%s of build %s is served uncompressed: %s", artifact.name, artifact.build_id, fault)


def _keep(artifact: Artifact, encoding: EncodedArtifact.Encoding, data: bytes) -> None:
    if len(data) > artifact.size * _WORTH_IT:
        return
    key = default_storage.save(f"{artifact.storage_key}.{encoding}", ContentFile(data))
    _, is_new = EncodedArtifact.objects.get_or_create(
        artifact=artifact, encoding=encoding, defaults={"size": len(data), "storage_key": key}
    )
    if not is_new:  # another request publishes the same build
        discard_keys([key])
