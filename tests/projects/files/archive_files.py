"""Archives for tests: ordinary ones by the standard library, and hostile ones made by hand."""

import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast
from unittest.mock import patch

BLOCK = tarfile.BLOCKSIZE
END_OF_TAR = bytes(2 * BLOCK)
PIECE = 1024**2
FITS = 0xFFFFFFFF  # larger numbers need zip64's extra field


class File(Protocol):
    """The same as projects.files.limits.NewFile, without needing Django."""

    @property
    def path(self) -> str: ...
    @property
    def content(self) -> bytes: ...
    @property
    def executable(self) -> bool: ...


def mode_of(file: File) -> int:
    return 0o755 if file.executable else 0o644


# --- tar -----------------------------------------------------------------------------------------------------------


def tar_of(files: Iterable[File], *, kind: int = tarfile.PAX_FORMAT, prefix: str = "") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=kind) as archive:
        for file in files:
            info = tarfile.TarInfo(prefix + file.path)
            info.size, info.mode = len(file.content), mode_of(file)
            archive.addfile(info, io.BytesIO(file.content))
    return packed.getvalue()


def member(name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, size: int | None = None) -> bytes:
    """A header and its content; `size` overrides the size in the header."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + content + bytes(-len(content) % BLOCK)


def pax(**records: bytes) -> bytes:
    """An extended header with records about the next member."""
    return member("pax", b"".join(record(key.encode(), value) for key, value in records.items()), kind=tarfile.XHDTYPE)


def record(key: bytes, value: bytes) -> bytes:
    """`length key=value` and a newline; the length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return str(length).encode() + rest


def tar_with(name: str, content: bytes = b"x") -> bytes:
    """A tar of one file, with any name."""
    return pax(path=name.encode("utf-8", "surrogateescape")) + member("x", content) + END_OF_TAR


def in_members(packed: bytes, size: int) -> bytes:
    """gzip in many members, as parallel compressors write it."""
    return b"".join(gzip.compress(packed[start : start + size]) for start in range(0, len(packed), size))


# --- zip -----------------------------------------------------------------------------------------------------------


def zip_of(files: Iterable[File], *, method: int = zipfile.ZIP_DEFLATED, to: BinaryIO | None = None) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(to or packed, "w") as archive:
        for file in files:
            info = zipfile.ZipInfo(file.path)
            info.compress_type, info.external_attr = method, (stat.S_IFREG | mode_of(file)) << 16
            archive.writestr(info, file.content)
    return packed.getvalue()


class _Pipe(io.RawIOBase):
    """Cannot seek, so that each file's sizes follow it as a "data descriptor"."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.data += data
        return len(data)


def streamed_zip_of(files: Iterable[File]) -> bytes:
    pipe = _Pipe()
    zip_of(files, to=cast("BinaryIO", pipe))
    return pipe.data


def large_zip_of(files: Iterable[File]) -> bytes:
    """A zip64, which is otherwise used only above 4 GB."""
    with patch.object(zipfile, "ZIP64_LIMIT", 3):
        return zip_of(files)


@dataclass(frozen=True)
class Entry:
    """One file of a zip made by hand; its headers may lie. None means the true value."""

    name: bytes
    content: bytes = b"x"
    mode: int = stat.S_IFREG | 0o644
    made_by: int = 3  # Unix
    attributes: int = 0
    flags: int = 0
    method: int = 0
    packed: bytes | None = None
    crc: int | None = None
    size: int | None = None
    packed_size: int | None = None
    offset: int | None = None
    local: bytes | None = None  # the whole local header with its content

    def sums(self) -> tuple[int, int, int]:
        crc = zlib.crc32(self.content) if self.crc is None else self.crc
        packed_size = len(self.data()) if self.packed_size is None else self.packed_size
        return crc, packed_size, len(self.content) if self.size is None else self.size

    def data(self) -> bytes:
        return self.content if self.packed is None else self.packed

    def local_part(self) -> bytes:
        if self.local is not None:
            return self.local
        crc, packed_size, size = self.sums()
        head = struct.pack("<4s5H", b"PK\3\4", 20, self.flags, self.method, 0, 0)
        extra = struct.pack("<2H2Q", 1, 16, size, packed_size) if size > FITS else b""
        sizes = (FITS, FITS) if extra else (packed_size, size)
        return head + struct.pack("<3L2H", crc, *sizes, len(self.name), len(extra)) + self.name + extra + self.data()

    def line(self, offset: int) -> bytes:
        """Its entry in the central directory."""
        crc, packed_size, size = self.sums()
        extra = struct.pack("<2HQ", 1, 8, size) if size > FITS else b""
        attributes = self.mode << 16 | self.attributes
        head = struct.pack("<4sBB5H", b"PK\1\2", 20, self.made_by, 20, self.flags, self.method, 0, 0)
        sums = struct.pack("<3L", crc, packed_size, FITS if extra else size)
        return (
            head
            + sums
            + struct.pack("<5H2L", len(self.name), len(extra), 0, 0, 0, attributes, offset)
            + self.name
            + extra
        )


def zip_by_hand(*entries: Entry) -> bytes:
    packed, directory = b"", b""
    for entry in entries:
        directory += entry.line(len(packed) if entry.offset is None else entry.offset)
        packed += entry.local_part()
    return packed + directory + zip_end(len(entries), len(directory), len(packed))


def zip_end(entries: int, size: int, offset: int) -> bytes:
    return struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, entries, entries, size, offset, 0)


def zip_with(name: str, content: bytes = b"x") -> bytes:
    """A zip of one file, with any name."""
    return zip_by_hand(Entry(name.encode("utf-8", "surrogateescape"), content))


# --- Archive bombs -------------------------------------------------------------------------------------------------


def deflated_zeros(size: int) -> bytes:
    """A raw deflate stream of `size` MiB of zeros, made fast by repeating a flushed block."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    piece = deflater.compress(bytes(PIECE)) + deflater.flush(zlib.Z_FULL_FLUSH)
    return piece * size + deflater.flush()


def gzip_bomb(size: int, *, member_size: int, name: str = "zeros") -> bytes:
    """A tar.gz of one file with `member_size` bytes in its header, followed by `size` MiB of zeros."""
    head = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS + 16)
    start = head.compress(member(name, size=member_size)) + head.flush(zlib.Z_FULL_FLUSH)
    return start + deflated_zeros(size) + bytes(8)


def zip_bomb(size: int, *, declared: int | None = None, entries: int = 1) -> bytes:
    """Entries of `size` MiB of zeros each; the directory declares `declared` bytes, by default the true size."""
    packed = deflated_zeros(size)
    declared = size * PIECE if declared is None else declared
    return zip_by_hand(
        *(Entry(b"zeros %d" % number, b"", method=8, packed=packed, size=declared) for number in range(entries))
    )


def overlapping_zip_bomb(size: int, *, declared: int, entries: int) -> bytes:
    """Many entries sharing one stream of zeros, each quoting the headers behind it: David Fifield's bomb."""
    kernel = Entry(b"%08d" % entries, b"", method=8, packed=deflated_zeros(size), size=declared)
    local, quoted = kernel.local_part(), [kernel]
    starts = [0]
    for number in reversed(range(entries - 1)):
        # A stored deflate block that holds the next entry's header, and then continues with that entry's data.
        head_length = 30 + len(kernel.name)
        packed = struct.pack("<BHH", 0, head_length, head_length ^ 0xFFFF) + local
        entry = Entry(b"%08d" % number, b"", method=8, packed=packed, size=declared)
        local = entry.local_part()
        quoted.insert(0, entry)
        starts = [0, *(start + head_length + 5 for start in starts)]
    directory = b"".join(entry.line(start) for entry, start in zip(quoted, starts, strict=True))
    return local + directory + zip_end(entries, len(directory), len(local))


KINDS: dict[str, Callable[[Sequence[File]], bytes]] = {
    "ustar": lambda files: tar_of(files, kind=tarfile.USTAR_FORMAT),
    "gnu": lambda files: tar_of(files, kind=tarfile.GNU_FORMAT),
    "pax": tar_of,
    "tar.gz": lambda files: gzip.compress(tar_of(files)),
    "tar.gz in members": lambda files: in_members(tar_of(files), 3000),
    "zip": zip_of,
    "stored zip": lambda files: zip_of(files, method=zipfile.ZIP_STORED),
    "streamed zip": streamed_zip_of,
    "zip64": large_zip_of,
}
