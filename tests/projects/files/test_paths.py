"""Valid paths of source files, and the limits of an upload."""

import pytest

from projects.files.paths import path_fault, upload_faults

pytestmark = pytest.mark.once

LIMITS = {"max_files": 3, "max_file": 10, "max_total": 20}


@pytest.mark.parametrize(
    "path",
    ["a", "src/App.tsx", "a b/ü.txt", ".env", "..a/b..", ".github/x.yml", ".gitignore", "x" * 240, "/".join("a" * 20)],
)
def test_plain_relative_paths_are_accepted(path: str) -> None:
    assert path_fault(path) is None


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "empty"),
        ("../x", "leaves"),
        ("/etc/x", "absolute"),
        ("a/../../x", "leaves"),
        ("C:\\x", "forward slashes"),
        ("C:x", "drive letter"),
        ("a\\b", "forward slashes"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("a\u202eb", "invisible"),
        ("\ud800", "control"),
        ("./a", "empty or"),
        ("a//b", "empty or"),
        ("a/", "empty or"),
        (".git/hooks/x", "version control"),
        (".GIT/config", "version control"),
        ("lib/.git/hooks/x", "version control"),
        ("lib/.svn", "version control"),
        ("x" * 241, "240 bytes"),
        ("/".join("a" * 21), "20 levels"),
    ],
)
def test_an_unsafe_or_misleading_path_is_refused(path: str, says: str) -> None:
    assert says in (path_fault(path) or "")


@pytest.mark.parametrize(
    ("first", "second"), [("a.txt", "A.TXT"), ("caf\u00e9", "cafe\u0301"), ("a", "a/b"), ("A/b", "a"), ("x", "x")]
)
def test_names_equal_on_some_file_system_clash(first: str, second: str) -> None:
    faults = upload_faults([(first, 1), (second, 1)], **LIMITS)

    assert [fault.code for fault in faults] == ["duplicate_path"]


def test_all_errors_of_an_upload_are_reported_at_once() -> None:
    faults = upload_faults([("../x", 1), ("big", 11), ("ok", 9), ("more", 1)], **LIMITS)

    assert [fault.code for fault in faults] == ["invalid_path", "file_too_large", "too_many_files", "project_too_large"]
