"""Reads a zip by its directory: every entry is checked before the first is unpacked, and must match its declared size.

The standard library's reader loads a directory of any length into memory and trusts its sizes. This one implements the
small part of the format that is needed (APPNOTE.TXT, sections 4.3 to 4.5) and refuses anything else.
"""

import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from projects.files.archive_intake import ArchiveError, Intake, most_headers, text_of

CUT_OFF = "The archive is truncated, or its directory is damaged: send the whole file."
OVERLAP = "The file overlaps the next entry: create the archive again."
STORED, DEFLATED = 0, 8

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MOST_COMMENT = 0xFFFF
_ENTRY_BYTES = 1024  # the most bytes per entry of the directory, on average
_ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13
_SIZES_FOLLOW = 1 << 3
_IS_64 = 0xFFFFFFFF


@dataclass(frozen=True)
class _Entry:
    """One directory entry. `mode` is 0 if the archive was not made on Unix."""

    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    mode: int
    is_folder: bool

    @property
    def name(self) -> str:
        return text_of(self.raw_name)


def is_zip(head: bytes) -> bool:
    return head.startswith((b"PK\3\4", b"PK\5\6"))


def read_zip(stream: BinaryIO, intake: Intake) -> None:
    """Add all members to the intake. Raises ArchiveError, or InvalidUploadError before anything is unpacked."""
    directory_at, entries = _directory(stream)
    wanted = [entry for entry in entries if _is_wanted(entry, intake)]
    intake.check()
    in_order = sorted(wanted, key=lambda entry: entry.offset)
    ends = [entry.offset for entry in in_order[1:]] + [directory_at]
    contents = {}
    for entry, most in zip(in_order, ends, strict=False):
        contents[entry.offset] = _content(stream, entry, most, intake)
    for entry in wanted:
        intake.keep(entry.name, contents.pop(entry.offset, b""), executable=bool(entry.mode & 0o100))


def _is_wanted(entry: _Entry, intake: Intake) -> bool:
    """Check an entry by its directory record."""
    kind = stat.S_IFMT(entry.mode)
    if entry.is_folder or kind == stat.S_IFDIR:
        intake.folder(entry.name.removesuffix("/"))
        if entry.size:
            intake.refuse("invalid_archive", entry.name, "This folder entry has data: create the archive again.")
    elif kind == stat.S_IFLNK:
        intake.refuse_kind(entry.name, "a symbolic link")
    elif kind not in {0, stat.S_IFREG}:
        intake.refuse_kind(entry.name, "a device or a pipe")
    elif entry.flags & _ENCRYPTED:
        intake.refuse("invalid_archive", entry.name, "The file is encrypted: pack it without a password.")
    elif entry.method not in {STORED, DEFLATED}:
        detail = "The compression method is not supported: use deflate, the default of zip programs."
        intake.refuse("invalid_archive", entry.name, detail)
    else:
        return intake.wants(entry.name, entry.size)
    return False


# --- One entry ---------------------------------------------------------------------------------------------------


def _content(stream: BinaryIO, entry: _Entry, most: int, intake: Intake) -> bytes:
    """The entry's content; b"" with an error in the intake when it does not match the directory."""
    try:
        content = _unpacked(entry, _packed(stream, entry, most))
        if len(content) != entry.size or zlib.crc32(content) != entry.crc:
            raise ArchiveError("The file's content does not match its checksum: create the archive again.")
    except (ArchiveError, zlib.error) as fault:
        detail = str(fault) if isinstance(fault, ArchiveError) else "The file is damaged: create the archive again."
        intake.refuse("invalid_archive", entry.name, detail)
        return b""
    return content


def _packed(stream: BinaryIO, entry: _Entry, most: int) -> bytes:
    """The entry's compressed bytes; they must end before `most`, where the next entry starts."""
    if entry.offset + _LOCAL.size > most:
        raise ArchiveError(OVERLAP)
    stream.seek(entry.offset)
    head = stream.read(_LOCAL.size)
    if len(head) < _LOCAL.size:
        raise ArchiveError(CUT_OFF)
    magic, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(head)
    if magic != b"PK\3\4" or stream.read(name_length) != entry.raw_name or method != entry.method:
        raise ArchiveError("The archive's directory and the file's own header disagree: create it again.")
    tells_sizes = not flags & _SIZES_FOLLOW and _IS_64 not in (packed, size)
    if tells_sizes and (crc, packed, size) != (entry.crc, entry.packed, entry.size):
        raise ArchiveError("The archive's directory and the file's own header disagree: create it again.")
    start = entry.offset + _LOCAL.size + name_length + extra_length
    if start + entry.packed > most:
        raise ArchiveError(OVERLAP)
    stream.seek(start)
    return stream.read(entry.packed)


def _unpacked(entry: _Entry, packed: bytes) -> bytes:
    if entry.method == STORED:
        return packed
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflater.decompress(packed, entry.size + 1)  # one more byte than declared shows a wrong size
    if not inflater.eof or inflater.unused_data:
        raise ArchiveError("The file's size differs from the one in the archive: create the archive again.")
    return content


# --- The directory -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _End:
    """Where the directory is, and how many entries it has."""

    at: int
    entries: int
    size: int
    offset: int


def _directory(stream: BinaryIO) -> tuple[int, list[_Entry]]:
    """Where the directory starts, and its entries. Its size is checked before it is read."""
    end = _end(stream)
    most = most_headers()
    if end.entries > most:
        raise ArchiveError(f"The archive has {end.entries:,} entries, more than the {most:,} allowed: leave some out.")
    if end.offset + end.size != end.at or end.size > most * _ENTRY_BYTES:
        raise ArchiveError(CUT_OFF)
    stream.seek(end.offset)
    return end.offset, list(_entries(stream.read(end.size), end.entries))


def _end(stream: BinaryIO) -> _End:
    """The end record: last in the file except for a comment of the length that it states."""
    length = stream.seek(0, 2)
    tail_at = stream.seek(max(0, length - _END.size - _MOST_COMMENT))
    tail = stream.read()
    at = len(tail)
    while (at := tail.rfind(b"PK\5\6", 0, at)) >= 0:
        if len(tail) - at >= _END.size:
            _, disk, first_disk, here, entries, size, offset, comment = _END.unpack_from(tail, at)
            if at + _END.size + comment == len(tail):
                end = _End(tail_at + at, entries, size, offset)
                if disk != first_disk or here != entries:
                    raise ArchiveError(
                        "The archive is one part of a multi-part archive: pack everything into one file."
                    )
                return _end_64(stream, end)
    raise ArchiveError(CUT_OFF)


def _end_64(stream: BinaryIO, end: _End) -> _End:
    """The ZIP64 end record, if there is one."""
    at = end.at - _LOCATOR_64.size
    if at < _END_64.size:
        return end
    stream.seek(at)
    magic, _, record_at, _ = _LOCATOR_64.unpack(stream.read(_LOCATOR_64.size))
    if magic != b"PK\6\7":
        return end
    if record_at != at - _END_64.size:
        raise ArchiveError(CUT_OFF)
    stream.seek(record_at)
    magic, _, _, _, disk, first_disk, here, entries, size, offset = _END_64.unpack(stream.read(_END_64.size))
    if magic != b"PK\6\6" or disk != first_disk or here != entries:
        raise ArchiveError(CUT_OFF)
    return _End(record_at, entries, size, offset)


def _entries(directory: bytes, count: int) -> Iterator[_Entry]:
    at = 0
    for _ in range(count):
        if len(directory) - at < _ENTRY.size:
            raise ArchiveError(CUT_OFF)
        entry, extra, at = _entry(directory, at)
        yield _wide(entry, extra)
    if at != len(directory):
        raise ArchiveError("The archive has more entries than it declares: create it again.")


def _entry(directory: bytes, at: int) -> tuple[_Entry, bytes, int]:
    """The entry at an offset in the directory, its extra fields, and the offset of the next one."""
    (
        magic, made_by, _, flags, method, _, _, crc, packed, size,
        name_length, extra_length, comment_length, disk, _, attributes, offset,
    ) = _ENTRY.unpack_from(directory, at)  # fmt: skip
    name_at = at + _ENTRY.size
    extra_at = name_at + name_length
    following = extra_at + extra_length + comment_length
    if magic != b"PK\1\2" or disk or following > len(directory):
        raise ArchiveError(CUT_OFF)
    name = directory[name_at:extra_at]
    # The upper half of the attributes is a mode only on Unix (3) and macOS (19).
    mode = attributes >> 16 if made_by >> 8 in {3, 19} else 0
    is_folder = name.endswith(b"/") or bool(made_by >> 8 == 0 and attributes & 0x10)
    entry = _Entry(name, flags, method, crc, packed, size, offset, mode, is_folder)
    return entry, directory[extra_at : extra_at + extra_length], following


def _wide(entry: _Entry, extra: bytes) -> _Entry:
    """The entry with its 64-bit numbers from extra field 1, in this order."""
    missing = [name for name in ("size", "packed", "offset") if getattr(entry, name) == _IS_64]
    while missing and len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == 1 and len(field) >= 8 * len(missing):
            return replace(entry, **dict(zip(missing, struct.unpack_from(f"<{len(missing)}Q", field), strict=True)))
    if missing:
        raise ArchiveError(CUT_OFF)
    return entry
