"""The tar stream that fills a new workspace: the project's files, and the toolbox, which builds cannot change."""

import functools
import io
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from django.conf import settings

from builds.sandbox.chef_init import NAME, first_process
from builds.sandbox.contract import InputFile


@functools.cache
def toolbox() -> tuple[tuple[str, bytes], ...]:
    """(name, content) of the files for every build: the first process, and the installation's certificate bundle."""
    files = list(first_process().files.items())
    if settings.CA_BUNDLE:
        files.append(("ca.pem", Path(settings.CA_BUNDLE).read_bytes()))
    return tuple(files)


def workspace_stream(files: Iterable[InputFile], tools: Mapping[str, bytes], *, uid: int) -> Iterator[bytes]:
    """A tar in chunks. Root owns the workspace itself and the toolbox; the build's user owns the rest."""
    yield _folder(".", 0, 0o755)
    for name in ("app", "home", "tmp", "tools"):
        yield _folder(name, uid, 0o755)
    yield _folder(".chef", 0, 0o755)
    for name, content in (*tools.items(), *toolbox()):
        yield _file(f".chef/{name}", content, 0, 0o555 if name == NAME else 0o444)
    made: set[PurePosixPath] = set()
    for file in files:
        path = PurePosixPath("app", file.path)
        for parent in reversed(path.parents[:-2]):
            if parent not in made:
                made.add(parent)
                yield _folder(str(parent), uid, 0o755)
        yield _file(str(path), file.content, uid, 0o755 if file.executable else 0o644)
    yield tarfile.NUL * (2 * tarfile.BLOCKSIZE)


def _header(name: str, owner: int, mode: int, size: int, kind: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.uid, info.gid, info.size = kind, mode, owner, owner, size
    info.mtime = int(time.time())  # zip files, and so wheels, cannot store times before 1980
    return info.tobuf(format=tarfile.PAX_FORMAT, encoding="utf-8")


def _folder(name: str, owner: int, mode: int) -> bytes:
    return _header(name, owner, mode, 0, tarfile.DIRTYPE)


def _file(name: str, content: bytes, owner: int, mode: int) -> bytes:
    padding = -len(content) % tarfile.BLOCKSIZE
    return b"".join((_header(name, owner, mode, len(content), tarfile.REGTYPE), content, bytes(padding)))


class StreamFile(io.RawIOBase):
    """Chunks of bytes as a file that tarfile can read sequentially."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            try:
                self._rest = next(self._chunks)
            except StopIteration:
                return 0
        taken = self._rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)
