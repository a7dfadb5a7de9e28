"""Reading and writing archives: each format, ignored entries, damage, and packing."""

import gzip
import io
import random
import tarfile
import zipfile
from collections.abc import Sequence
from typing import Any

import pytest

from projects.files.archives import pack, unpack
from projects.files.limits import InvalidUploadError
from projects.files.paths import NewFile, path_fault
from projects.models import SourceFile
from tests.projects.files.archive_files import (
    END_OF_TAR,
    KINDS,
    Entry,
    member,
    pax,
    tar_of,
    tar_with,
    zip_by_hand,
    zip_of,
    zip_with,
)

pytestmark = pytest.mark.once

FILES = [
    NewFile("index.html", b"<h1>hi</h1>" * 60),
    NewFile("src/größe/日本語.txt", "äöü€".encode()),
    NewFile("bin/run.sh", b"#!/bin/sh\necho hi\n", executable=True),
    NewFile("empty", b""),
    NewFile(f"{'long/' * 12}{'name' * 15}.txt", bytes(range(256)) * 3),
]


def opened(archive: bytes) -> list[NewFile]:
    return unpack(io.BytesIO(archive))


def refusal(archive: bytes) -> list[tuple[str, str]]:
    """Code and path of each error."""
    with pytest.raises(InvalidUploadError) as refused:
        opened(archive)
    return [(fault.code, fault.path) for fault in refused.value.faults]


# --- Reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_of_archive_is_read(kind: str) -> None:
    archive = KINDS[kind](FILES)

    assert opened(archive) == FILES


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_without_files_is_read_as_empty(kind: str) -> None:
    archive = KINDS[kind]([])

    assert opened(archive) == []


def test_a_leading_dot_in_a_tar_s_names_is_the_folder_itself() -> None:
    archive = member("./", kind=tarfile.DIRTYPE) + tar_of(FILES, prefix="./")

    assert opened(archive) == FILES


def test_folders_are_ignored() -> None:
    folders = [member(name, kind=tarfile.DIRTYPE) for name in ("src/", "src/empty")]
    tar = b"".join(folders) + member("a", b"x") + END_OF_TAR
    unix, windows = Entry(b"src/", b"", mode=0o40755), Entry(b"lib", b"", made_by=0, mode=0, attributes=0x10)
    packed = zip_by_hand(unix, windows, Entry(b"a"))

    assert opened(tar) == opened(packed) == [NewFile("a", b"x")]


def test_macos_metadata_is_ignored() -> None:
    added = ["__MACOSX/._a", "__MACOSX/src/._b", "._a", "src/._b", ".DS_Store", "src/.DS_Store"]
    files = [NewFile(name, b"x") for name in [*added, "a", "src/b", "DS_Store", "src/__MACOSX/c"]]

    read_back = [[file.path for file in opened(archive)] for archive in (tar_of(files), zip_of(files))]

    assert read_back == [["a", "src/b", "DS_Store", "src/__MACOSX/c"]] * 2


def test_macos_metadata_counts_towards_no_limit(settings: Any) -> None:
    settings.MAX_FILES, settings.MAX_FILE_BYTES, settings.MAX_PROJECT_BYTES = 1, 10, 10
    files = [NewFile("._a", bytes(1000)), NewFile("a", b"x")]

    assert [opened(archive) for archive in (tar_of(files), zip_of(files))] == [[NewFile("a", b"x")]] * 2


def test_headers_without_relevant_records_are_ignored() -> None:
    comment = member(
        "pax_global_header", b"52 comment=0123456789abcdef", kind=tarfile.XGLTYPE
    )  # as `git archive` writes it
    attributes = pax(**{"mtime": b"1.5", "SCHILY.xattr.user.x": b"\0\xff=\n"})

    assert opened(comment + attributes + member("a", b"x") + END_OF_TAR) == [NewFile("a", b"x")]


def test_one_end_block_and_trailing_zeros_are_accepted() -> None:
    tar = member("a", b"x") + bytes(512)

    assert opened(tar) == opened(gzip.compress(tar) + bytes(10_000)) == [NewFile("a", b"x")]


def test_a_zip_s_comment_may_look_like_an_end_record() -> None:
    packed = io.BytesIO(zip_of(FILES))
    with zipfile.ZipFile(packed, "a") as archive:
        archive.comment = b"PK\5\6 and more" * 20

    assert opened(packed.getvalue()) == FILES


def test_a_zip_without_file_modes_gives_plain_files() -> None:
    archive = zip_by_hand(Entry(b"a", made_by=0, mode=0o100755))

    assert opened(archive) == [NewFile("a", b"x")]


# --- Damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_archive_is_refused(kind: str) -> None:
    whole = KINDS[kind](FILES)
    # A plain tar without only its end mark still has all its files.
    needed = len(whole.rstrip(b"\0")) if kind in {"ustar", "gnu", "pax"} else len(whole)

    for length in range(0, needed, 7):
        assert {code for code, _ in refusal(whole[:length])} == {"invalid_archive"}, length
    for length in range(needed, len(whole), 101):
        assert opened_or_none(whole[:length]) in (None, FILES), length


def opened_or_none(archive: bytes) -> list[NewFile] | None:
    try:
        return opened(archive)
    except InvalidUploadError:
        return None


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_archive_is_refused_or_within_the_limits(kind: str, settings: Any) -> None:
    settings.MAX_FILE_BYTES, settings.MAX_PROJECT_BYTES = 2000, 4000
    chance = random.Random(kind)
    whole = KINDS[kind](FILES)

    for _ in range(1500):
        files = opened_or_none(damaged(whole, chance)) or []
        assert all(path_fault(file.path) is None and len(file.content) <= 2000 for file in files)
        assert sum(len(file.content) for file in files) <= 4000


def damaged(whole: bytes, chance: random.Random) -> bytes:
    """The bytes with some changed, removed or inserted."""
    data = bytearray(whole)
    for _ in range(chance.choice([1, 1, 2, 5])):
        at, length = chance.randrange(len(data)), chance.randrange(1, 600)
        match chance.randrange(6):
            case 0:
                del data[at : at + length]
            case 1:
                data[at:at] = data[at : at + length]
            case 2:
                data[at : at + 4] = chance.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f"])
            case _:
                data[at] ^= 1 << chance.randrange(8)
        if not data:
            return b""
    return bytes(data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rest", [b"x", b"\0" * 700 + b"x", b"garbage" * 1000])
def test_trailing_data_is_refused(kind: str, rest: bytes) -> None:
    assert refusal(KINDS[kind](FILES) + rest)[0][0] == "invalid_archive"


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_archive_behind_the_first_is_refused(kind: str) -> None:
    archive = KINDS[kind](FILES)

    assert refusal(archive + archive) == [("invalid_archive", "")]


@pytest.mark.parametrize("content", [b"", b"x", b"MZ" * 300, b"\x1f\x8b", b"PK", b"PK\3\4", b"Rar!\x1a\7" + bytes(600)])
def test_a_file_that_is_not_an_archive_is_refused(content: bytes) -> None:
    assert refusal(content) == [("invalid_archive", "")]


@pytest.mark.parametrize("content", [b"", b"x", zip_of(FILES), gzip.compress(tar_of(FILES))])
def test_a_gzip_of_anything_but_a_tar_is_refused(content: bytes) -> None:
    assert refusal(gzip.compress(content)) == [("invalid_archive", "")]


# --- Names -------------------------------------------------------------------------------------------------------

BAD_NAMES = [
    "",
    "/etc/x",
    "../x",
    "a/../../x",
    "a/..",
    "C:\\x",
    "C:x",
    "a\\b",
    "a\0b",
    "a\nb",
    "a\u202eb",
    "a//b",
    "a/./b",
]
BAD_NAMES += [".git/hooks/x", ".GIT/config", "lib/.git/hooks/x", "x" * 241, "/".join("a" * 21)]


@pytest.mark.parametrize("pack_one", [tar_with, zip_with])
@pytest.mark.parametrize("name", BAD_NAMES)
def test_an_unsafe_or_misleading_name_is_refused(pack_one: Any, name: str) -> None:
    assert refusal(pack_one(name)) == [("invalid_path", name)]


@pytest.mark.parametrize("name", ["../x", "/etc", "a\\b", ".git/hooks"])
def test_an_unsafe_folder_name_is_refused(name: str) -> None:
    tar = member(name, kind=tarfile.DIRTYPE) + END_OF_TAR
    packed = zip_by_hand(Entry(name.encode() + b"/", b"", mode=0o40755))

    assert refusal(tar) == refusal(packed) == [("invalid_path", name)]


@pytest.mark.parametrize("pack_one", [tar_with, zip_with])
def test_a_name_that_is_not_utf_8_is_reported_with_escapes(pack_one: Any) -> None:
    archive = pack_one(b"caf\xe9.txt".decode("utf-8", "surrogateescape"))

    assert refusal(archive) == [("invalid_path", "caf\\xe9.txt")]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a.txt", "A.TXT"),
        ("caf\u00e9", "cafe\u0301"),
        ("a", "a/b"),
        ("A/b", "a"),
        ("x", "x"),
        ("stra\u00dfe", "STRASSE"),
    ],
)
def test_names_that_clash_on_some_file_system_are_refused(first: str, second: str) -> None:
    tar = tar_of([NewFile(first, b"1"), NewFile(second, b"2")])
    packed = zip_by_hand(Entry(first.encode()), Entry(second.encode()))

    assert [code for code, _ in refusal(tar)] == [code for code, _ in refusal(packed)] == ["duplicate_path"]


def test_a_name_with_and_without_a_leading_dot_is_a_duplicate() -> None:
    tar = member("a", b"1") + member("./a", b"2") + END_OF_TAR

    assert refusal(tar) == [("duplicate_path", "a")]


# --- Packing -----------------------------------------------------------------------------------------------------


def rows(files: Sequence[NewFile]) -> list[SourceFile]:
    return [SourceFile(path=file.path, content=file.content, executable=file.executable) for file in files]


def test_packed_files_are_read_back_unchanged() -> None:
    files = [*FILES, NewFile("big", random.Random(1).randbytes(300_000)), NewFile("ä" * 120, b"x")]

    archive = b"".join(pack(rows(files)))

    assert opened(archive) == files


def test_packing_is_deterministic() -> None:
    first, second = b"".join(pack(rows(FILES))), b"".join(pack(rows(FILES)))

    assert first == second
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        members = archive.getmembers()
    assert {(each.uid, each.gid, each.uname, each.gname, each.mtime) for each in members} == {(0, 0, "", "", 315532800)}
    assert [each.mode for each in members] == [0o755 if file.executable else 0o644 for file in FILES]


def test_packing_no_files_makes_an_empty_archive() -> None:
    assert opened(b"".join(pack([]))) == []
