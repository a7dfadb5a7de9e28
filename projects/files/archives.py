"""Archives in and out: a tar, tar.gz or zip → source files within the limits; source files → a tar.gz.

The format is detected from the content, never from the name. Nothing is extracted to disk, and declared sizes are not
trusted: an archive that unpacks to more than a project may hold costs no more than one that just fits. Folder entries
are skipped, since files imply them, and so are `__MACOSX/`, `.DS_Store` and `._name`, which macOS adds. Knows nothing
of requests.
"""

import io
import tarfile
import zlib
from collections.abc import Generator, Iterable
from typing import BinaryIO, cast

from projects.files.archive_intake import ArchiveError, Intake
from projects.files.ignore_rules import IgnoreRules
from projects.files.paths import NewFile
from projects.files.tar_members import BLOCK, CUT_OFF, is_tar, read_tar
from projects.files.zip_members import is_zip, read_zip
from projects.models import SourceFile

PIECE_BYTES = 64 * 1024
# Parallel compressors write a tar as many gzip members; each has a start-up cost.
MAX_GZIP_MEMBERS = 4000
GZIP = zlib.MAX_WBITS + 16
# The time of each packed file, so that packing again gives the same bytes. The earliest that zip files allow.
PACKED_AT = 315_532_800  # 1980-01-01


def unpack(upload: BinaryIO, ignore_rules: IgnoreRules | None = None) -> list[NewFile]:
    """The files of an archive, in its order; `upload` must be seekable. An empty archive gives no files.

    Members that match the ignore rules are skipped, whatever their type.

    Raises InvalidUploadError with all errors: those of `projects.files.paths`, `unsafe_member` for members that are not
    plain files, and `invalid_archive` for an archive that cannot be read or contradicts itself.
    """
    intake = Intake(ignore_rules)
    try:
        _read(upload, intake)
    except ArchiveError as fault:
        intake.refuse("invalid_archive", "", str(fault))
    return intake.result()


def _read(upload: BinaryIO, intake: Intake) -> None:
    upload.seek(0)
    head = upload.read(BLOCK)
    upload.seek(0)
    if head.startswith(b"\x1f\x8b"):
        read_tar(cast(BinaryIO, io.BufferedReader(_Gunzip(upload), PIECE_BYTES)), intake)
    elif is_zip(head):
        read_zip(upload, intake)
    elif is_tar(head):
        read_tar(upload, intake)
    else:
        raise ArchiveError("The file is not a tar, tar.gz or zip archive: send one of these.")


class _Gunzip(io.RawIOBase):
    """The content of a gzip file, verified by its checksums. Raises ArchiveError when it is damaged or truncated."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._waiting = b""
        self._members = 1
        self._inflater: zlib._Decompress | None = zlib.decompressobj(GZIP)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        try:
            piece = self._piece(len(buffer))
        except zlib.error as fault:
            raise ArchiveError("The gzip file is damaged: create it again.") from fault
        buffer[: len(piece)] = piece
        return len(piece)

    def _piece(self, most: int) -> bytes:
        while self._inflater:
            data = self._waiting or self._source.read(PIECE_BYTES)
            piece = self._inflater.decompress(data, most)
            self._waiting = self._inflater.unconsumed_tail
            if self._inflater.eof:
                self._inflater = self._next(self._inflater.unused_data)
            elif not data and not piece:
                raise ArchiveError(CUT_OFF)
            if piece:
                return piece
        return b""

    def _next(self, rest: bytes) -> "zlib._Decompress | None":
        """Another gzip member may follow, or zero bytes that pad the last block."""
        while not (rest := rest.lstrip(b"\0")):
            if not (rest := self._source.read(PIECE_BYTES)):
                return None
        self._waiting = rest
        self._members += 1
        if not rest.startswith(b"\x1f") or self._members > MAX_GZIP_MEMBERS:
            raise ArchiveError("There is data after the end of the archive: send a single archive.")
        return zlib.decompressobj(GZIP)


def pack(files: Iterable[SourceFile | NewFile]) -> Generator[bytes]:
    """A tar.gz of the files in the order given, in chunks: only one file is in memory at a time.

    The same files give the same bytes: owners, times and the gzip header are constant.
    """
    deflater = zlib.compressobj(wbits=GZIP)
    for file in files:
        content = memoryview(file.content)
        yield deflater.compress(_header(file.path, len(content), executable=file.executable))
        for start in range(0, len(content), PIECE_BYTES):
            yield deflater.compress(content[start : start + PIECE_BYTES])
        yield deflater.compress(bytes(-len(content) % BLOCK))
    yield deflater.compress(bytes(2 * BLOCK))
    yield deflater.flush()


def _header(path: str, size: int, *, executable: bool) -> bytes:
    info = tarfile.TarInfo(path)
    info.size, info.mtime, info.mode = size, PACKED_AT, 0o755 if executable else 0o644
    return info.tobuf(format=tarfile.PAX_FORMAT, encoding="utf-8")
