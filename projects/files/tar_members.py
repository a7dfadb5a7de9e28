"""Reads a tar header by header: plain files are kept; links, devices and all else are refused.

Nothing is ever extracted. The standard library decodes single headers; the iteration is done here, because the
library's own reads extended headers of any length and skips what it does not understand.
"""

import tarfile
from collections.abc import Mapping
from typing import BinaryIO

from django.conf import settings

from projects.files.archive_intake import ArchiveError, Intake, most_headers, text_of

BLOCK = tarfile.BLOCKSIZE
PIECE_BYTES = 64 * 1024
CUT_OFF = "The archive is truncated: send the whole file."
DAMAGED = "The archive is damaged, or is not a tar: create it again."

_PLAIN = {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE}
_PAX = {tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE}
# The only pax records that are kept: a header of a few megabytes can hold hundreds of thousands.
_PATH, _SIZE, _SPARSE = b"path", b"size", b"GNU.sparse."
_KINDS: Mapping[bytes, str] = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
}


def is_tar(block: bytes) -> bool:
    """Whether a tar can start with this block: a header, or the end mark of an empty tar."""
    return len(block) == BLOCK and (not any(block) or _is_header(block))


def read_tar(stream: BinaryIO, intake: Intake) -> None:
    """Add all members to the intake. Raises ArchiveError; members read before that are in the intake."""
    tape = _Tape(stream)
    long: dict[bytes, bytes] = {}  # records of extended headers about the member that follows
    for _ in range(most_headers()):
        block = tape.read(BLOCK)
        if not any(block):
            if long:
                raise ArchiveError(CUT_OFF)
            tape.read_to_end()
            return
        header = _header(block)
        if header.type in _PAX:
            long |= _records(tape.read_extension(header.size))
        elif header.type == tarfile.GNUTYPE_LONGNAME:
            long[_PATH] = tape.read_extension(header.size).partition(b"\0")[0]
        elif header.type in {tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE}:
            tape.read_extension(header.size)  # only links have long link names; git's comment does not matter
        elif not _take(tape, header, long, intake):
            return  # the limits are exceeded already: report those
        else:
            long = {}
    raise ArchiveError(f"The archive has more than {most_headers():,} entries: leave some out.")


class _Tape:
    """The tar from start to end, but no more of it than a project within the limits can need."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._most = self._left = settings.MAX_PROJECT_BYTES + most_headers() * 1024 + 1024**2
        self._extensions_left = settings.MAX_FILES * 4096 + 256 * 1024

    def read(self, size: int) -> bytes:
        self._spend(size)
        data = self._stream.read(size)
        if len(data) < size:
            raise ArchiveError(CUT_OFF)
        return data

    def read_padded(self, size: int) -> bytes:
        """A member's content; the padding of its last block is skipped."""
        content = self.read(size)
        self.read(-size % BLOCK)
        return content

    def read_extension(self, size: int) -> bytes:
        """An extended header. Counted separately, because each byte of it costs more than one of content."""
        self._extensions_left -= size
        if size < 0 or self._extensions_left < 0:
            raise ArchiveError("The archive's extended headers are too long: create it without extended attributes.")
        return self.read_padded(size)

    def skip(self, size: int) -> None:
        size += -size % BLOCK
        while size > 0:
            size -= len(self.read(min(size, PIECE_BYTES)))

    def read_to_end(self) -> None:
        """Only padding may follow the end mark: a second tar would be lost silently."""
        while data := self._stream.read(PIECE_BYTES):
            self._spend(len(data))
            if data.count(0) < len(data):
                raise ArchiveError("There is data after the end of the archive: send a single archive.")

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ArchiveError(f"The archive unpacks to more than {self._most:,} bytes: leave something out.")


def _take(tape: _Tape, header: tarfile.TarInfo, long: Mapping[bytes, bytes], intake: Intake) -> bool:
    """Read one member. Returns False when reading on is pointless."""
    name, size = _named(header, long), _sized(header, long)
    if header.type == tarfile.DIRTYPE:
        if name not in {"", "."}:
            intake.folder(name.removesuffix("/"))
    elif header.type == tarfile.GNUTYPE_SPARSE or _SPARSE in long:
        intake.refuse_kind(name, "a sparse file")
        return False  # it is followed by headers of various kinds
    elif header.type not in _PLAIN:
        intake.refuse_kind(name, _KINDS.get(header.type, "of an unknown kind"))
        if header.type not in _KINDS:
            tape.skip(size)
    elif intake.wants(name, size):
        intake.keep(name, tape.read_padded(size), executable=bool(header.mode & 0o100))
    elif intake.total_bytes > settings.MAX_PROJECT_BYTES:
        return False
    else:
        tape.skip(size)
    return True


def _named(header: tarfile.TarInfo, long: Mapping[bytes, bytes]) -> str:
    """The name without the `./` that `tar -c .` puts before it."""
    name = text_of(long[_PATH]) if _PATH in long else header.name
    return name.removeprefix("./")


def _sized(header: tarfile.TarInfo, long: Mapping[bytes, bytes]) -> int:
    declared = long.get(_SIZE)
    if declared is not None and (not declared.isdigit() or len(declared) > 20):
        raise ArchiveError(DAMAGED)
    size = header.size if declared is None else int(declared)
    if size < 0:
        raise ArchiveError(DAMAGED)
    return size


def _header(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError as fault:
        raise ArchiveError(DAMAGED) from fault


def _is_header(block: bytes) -> bool:
    try:
        return bool(_header(block))
    except ArchiveError:
        return False


def _records(data: bytes) -> dict[bytes, bytes]:
    """The records of a pax header (`length key=value`) that concern the member."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        if space < 0 or not data[at:space].isdigit():
            raise ArchiveError(DAMAGED)
        end = at + int(data[at:space])
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or end > len(data) or data[end - 1 : end] != b"\n":
            raise ArchiveError(DAMAGED)
        if key in {_PATH, _SIZE}:
            records[key] = value
        elif key.startswith(_SPARSE):
            records[_SPARSE] = value
        at = end
    return records
