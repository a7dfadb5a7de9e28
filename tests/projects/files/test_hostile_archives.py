"""Hostile or malformed archives: refused with all errors, and cheaply."""

import gzip
import stat
import tarfile
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from projects.files.archive_intake import most_headers
from projects.files.paths import NewFile
from tests.projects.files.archive_files import (
    END_OF_TAR,
    Entry,
    deflated_zeros,
    gzip_bomb,
    in_members,
    large_zip_of,
    member,
    overlapping_zip_bomb,
    pax,
    tar_of,
    zip_bomb,
    zip_by_hand,
    zip_end,
    zip_of,
)
from tests.projects.files.test_archives import opened, refusal

pytestmark = pytest.mark.once

INVALID = [("invalid_archive", "")]
UNSAFE = [("unsafe_member", "x")]


# --- Entries that are not plain files --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.GNUTYPE_SPARSE,
        b"D",  # a folder's listing in an incremental dump
        b"M",  # the continuation of a file from another volume
        b"V",  # a volume label
    ],
)
def test_a_tar_s_links_devices_and_unknown_kinds_are_refused(kind: bytes) -> None:
    archive = member("x", kind=kind) + member("a", b"x") + END_OF_TAR

    assert refusal(archive) == UNSAFE


@pytest.mark.parametrize("key", ["GNU.sparse.major", "GNU.sparse.size", "GNU.sparse.map"])
def test_a_sparse_file_in_pax_format_is_refused(key: str) -> None:
    archive = pax(**{key: b"1", "GNU.sparse.name": b"hidden"}) + member("x") + END_OF_TAR

    assert refusal(archive) == UNSAFE


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
@pytest.mark.parametrize("made_by", [3, 19])
def test_a_zip_s_links_and_devices_are_refused(kind: int, made_by: int) -> None:
    archive = zip_by_hand(Entry(b"x", b"/etc/passwd", mode=kind | 0o777, made_by=made_by))

    assert refusal(archive) == UNSAFE


@pytest.mark.parametrize("flags", [1, 1 | 1 << 6, 1 << 13])
def test_an_encrypted_zip_is_refused(flags: int) -> None:
    assert refusal(zip_by_hand(Entry(b"x", flags=flags))) == [("invalid_archive", "x")]


@pytest.mark.parametrize("method", [1, 9, 12, 14, 93, 99])
def test_an_unsupported_compression_method_is_refused(method: int) -> None:
    assert refusal(zip_by_hand(Entry(b"x", method=method))) == [("invalid_archive", "x")]


# --- Contradictory headers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [
        Entry(b"x", b"long", size=3),
        Entry(b"x", b"long", size=5),
        Entry(b"x", b"long", crc=1),
        Entry(b"x", b"long", packed_size=3),
        Entry(b"x", b"long", packed_size=0),
        Entry(b"x", b"long", packed_size=10_000),
        Entry(b"x", b"long", offset=10_000),
        Entry(b"x", b"long", offset=0xFFFFFFFE),
        Entry(b"x", b"", method=8, packed=deflated_zeros(1), size=100),
        Entry(b"x", bytes(2000), method=8, packed=deflated_zeros(0)),
        Entry(b"x", b"", method=8, packed=deflated_zeros(0) + b"rest"),
        Entry(b"x", b"", method=8, packed=b""),
        Entry(b"x", b"", method=8, packed=b"\xff\xff\xff"),
        Entry(b"x", b"long", local=Entry(b"y", b"long").local_part()),
        Entry(b"x", b"long", local=Entry(b"x", b"long", size=3).local_part()),
        Entry(b"x", b"long", local=Entry(b"x", b"long", packed_size=3).local_part()),
        Entry(b"x", b"long", local=Entry(b"x", b"long", crc=3).local_part()),
        Entry(b"x", b"long", local=Entry(b"x", b"long", method=8).local_part()),
        Entry(b"x", b"long", local=b""),
    ],
)
def test_a_zip_entry_that_contradicts_its_directory_is_refused(entry: Entry) -> None:
    archive = zip_by_hand(Entry(b"first"), entry)

    assert refusal(archive) == [("invalid_archive", "x")]


def test_an_offset_beyond_the_file_is_refused() -> None:
    archive = large_zip_of([NewFile("a" * 20, b"1" * 20), NewFile("b" * 20, b"2" * 20)])
    at = archive.rindex(b"\x01\x00\x18\x00") + 4 + 16  # the offset in the second one's extra field

    broken = archive[:at] + b"\xff" * 8 + archive[at + 8 :]

    assert refusal(broken) == [("invalid_archive", "b" * 20)]


def test_a_folder_with_data_is_refused() -> None:
    assert refusal(zip_by_hand(Entry(b"x/", b"data", mode=0o40755))) == [("invalid_archive", "x/")]


@pytest.mark.parametrize("changes", [{"entries": 2}, {"entries": 0}, {"size": -1}, {"size": 1}, {"offset": -1}])
def test_a_zip_end_record_that_contradicts_its_directory_is_refused(changes: dict[str, int]) -> None:
    local, line = Entry(b"x").local_part(), Entry(b"x").line(0)
    true = {"entries": 1, "size": len(line), "offset": len(local)}
    declared = {**true, **{name: true[name] + by for name, by in changes.items() if name != "entries"}}
    declared["entries"] = changes.get("entries", 1)

    assert refusal(local + line + zip_end(**declared)) == INVALID


def test_a_part_of_a_multi_part_zip_is_refused() -> None:
    whole = zip_of([NewFile("a", b"x")])
    end = whole.rindex(b"PK\5\6")

    assert refusal(whole[: end + 4] + b"\1\0" + whole[end + 6 :]) == INVALID


def test_overlapping_zip_entries_are_refused() -> None:
    twice = zip_by_hand(Entry(b"x"), Entry(b"x2", offset=0, local=b""))
    inner = Entry(b"y", b"inner")
    within = zip_by_hand(Entry(b"x", inner.local_part()), Entry(b"y", b"inner", offset=31, local=b""))

    assert ("invalid_archive", "x") in refusal(twice)
    assert refusal(within) == [("invalid_archive", "x")]


@pytest.mark.parametrize(
    "size", [b"0", b"1", b"512", b"1025", b"100000", b"-1", b"", b"x", b"1_0", b"9" * 21, b"9" * 5000]
)
def test_a_wrong_tar_size_is_refused(size: bytes) -> None:
    archive = pax(size=size) + member("x", b"\xffcontent" * 100) + member("y", b"y") + END_OF_TAR

    assert refusal(archive)[0][0] in {"invalid_archive", "file_too_large"}


@pytest.mark.parametrize("size", [-1, -(2**80), 2**80])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, b"?"])
def test_an_impossible_tar_size_is_refused(size: int, kind: bytes) -> None:
    archive = member("x", kind=kind, size=size) + member("y", b"y") + END_OF_TAR

    assert refusal(archive)


@pytest.mark.parametrize(
    "records",
    [b"x", b"5 a=", b"0 a=b\n", b"2 ", b"99 a=b\n", b"8 a=bc\n", b"6 a=bc\n", b"-5 a=b\n", b"1" * 30, b"5 abc\n"],
)
def test_a_malformed_pax_header_is_refused(records: bytes) -> None:
    archive = member("pax", records, kind=tarfile.XHDTYPE) + member("x", b"x") + END_OF_TAR

    assert refusal(archive) == INVALID


def test_an_extended_header_without_a_file_is_refused() -> None:
    assert refusal(pax(path=b"x") + END_OF_TAR) == INVALID


# --- Limits ----------------------------------------------------------------------------------------------------


def test_every_file_beyond_a_limit_is_reported(settings: Any) -> None:
    settings.MAX_FILES, settings.MAX_FILE_BYTES, settings.MAX_PROJECT_BYTES = 3, 10, 25
    files = [NewFile("big", bytes(11)), NewFile("a", bytes(9)), NewFile("b", bytes(4)), NewFile("c", bytes(5))]

    refusals = [refusal(archive) for archive in (tar_of(files), gzip.compress(tar_of(files)), zip_of(files))]

    assert refusals == [[("file_too_large", "big"), ("too_many_files", ""), ("project_too_large", "")]] * 3


def test_all_errors_of_a_tar_are_reported_at_once() -> None:
    tar = member("link", kind=tarfile.SYMTYPE) + member("../x", b"x") + member(".git/y", kind=tarfile.DIRTYPE)
    tar += member("big", bytes(1024**2 + 1)) + member("A", b"x") + member("a", b"x") + END_OF_TAR
    entries = [Entry(b"link", mode=stat.S_IFLNK), Entry(b"../x"), Entry(b".git/y/", b""), Entry(b"a\xff")]
    packed = zip_by_hand(
        *entries, Entry(b"secret", flags=1), Entry(b"big", bytes(1024**2 + 1)), Entry(b"A"), Entry(b"a")
    )

    shared = {
        ("unsafe_member", "link"),
        ("invalid_path", "../x"),
        ("invalid_path", ".git/y"),
        ("file_too_large", "big"),
        ("duplicate_path", "a"),
    }
    assert set(refusal(tar)) == shared
    assert set(refusal(packed)) == shared | {("invalid_path", "a\\xff"), ("invalid_archive", "secret")}


def test_all_contradictory_zip_entries_are_reported_at_once() -> None:
    packed = zip_by_hand(Entry(b"x", crc=1), Entry(b"good"), Entry(b"y", size=5))

    assert refusal(packed) == [("invalid_archive", "x"), ("invalid_archive", "y")]


def test_too_many_headers_are_refused(settings: Any) -> None:
    settings.MAX_FILES = 1
    most = most_headers()
    folder, line = member("d", kind=tarfile.DIRTYPE), Entry(b"d/", b"", mode=0o40755)

    assert opened(folder * (most - 1) + END_OF_TAR) == []
    assert refusal(folder * most + END_OF_TAR) == INVALID
    assert refusal(zip_by_hand(*[line] * (most + 1))) == INVALID


def test_an_oversized_zip_directory_is_refused(settings: Any) -> None:
    settings.MAX_FILES = 1
    directory = bytes(most_headers() * 1024 + 1)

    assert refusal(b"PK\3\4" + directory + zip_end(1, len(directory), 4)) == INVALID


def test_too_many_gzip_members_are_refused() -> None:
    tar = tar_of([NewFile("a", b"x" * 5000)])

    assert opened(in_members(tar, 4)) == [NewFile("a", b"x" * 5000)]
    assert refusal(in_members(tar, 2)) == INVALID


@pytest.mark.parametrize(
    "header",
    [
        pax(path=b"x" * 5_000_000),
        pax(comment=b"x" * 5_000_000),
        pax(comment=b"x" * 50_000) * 100,
        member("x", b"x" * 5_000_000, kind=tarfile.GNUTYPE_LONGNAME),
        member("x", b"x" * 5_000_000, kind=tarfile.GNUTYPE_LONGLINK),
        member("x", b"x" * 5_000_000, kind=tarfile.XGLTYPE),
    ],
    ids=["path", "comment", "many comments", "long name", "long link", "global"],
)
def test_oversized_extended_headers_are_refused(header: bytes) -> None:
    assert refusal(header + member("x", b"x") + END_OF_TAR) == INVALID


GIGABYTE = 1024  # in MiB
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a gzip that declares its size": (lambda: gzip_bomb(GIGABYTE, member_size=GIGABYTE * 1024**2), "file_too_large"),
    "a gzip that lies": (lambda: gzip_bomb(GIGABYTE, member_size=1000), "invalid_archive"),
    "a gzip of ignored files": (
        lambda: gzip_bomb(GIGABYTE, member_size=2**33 - 1, name="._x"),
        "invalid_archive",
    ),
    "a gzip of folders": (lambda: gzip.compress(member("d", kind=tarfile.DIRTYPE) * 20_000), "invalid_archive"),
    "a zip that declares its size": (lambda: zip_bomb(GIGABYTE), "file_too_large"),
    "a zip of many entries": (lambda: zip_bomb(50, entries=20), "file_too_large"),
    "a zip that lies": (lambda: zip_bomb(GIGABYTE, declared=1000), "invalid_archive"),
    "a zip of many entries that lie": (lambda: zip_bomb(50, declared=1024**2, entries=20), "invalid_archive"),
    "a zip of overlapping entries": (
        lambda: overlapping_zip_bomb(50, declared=1024**2, entries=20),
        "invalid_archive",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_needs_no_more_memory_than_the_largest_valid_archive(name: str) -> None:
    make, code = BOMBS[name]
    archive = make()

    started = time.process_time()
    codes = {code for code, _ in refusal(archive)}
    took = time.process_time() - started

    assert code in codes
    assert took < 2
    assert peak_of(lambda: refusal(archive)) < 30 * 1024**2


def test_only_relevant_records_of_a_large_header_are_kept() -> None:
    records = pax(**{f"{number:x}": b"" for number in range(20_000)})

    peak = peak_of(lambda: opened(records + member("x", b"x") + END_OF_TAR))

    assert peak < 2 * 1024**2


def peak_of(run: Callable[[], object]) -> int:
    """The peak of allocated memory, in bytes."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
