"""The diff between two revisions: which files, how they are shown, and that large diffs stay cheap."""

import random
import time
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from projects.actions import add_revision, create_project
from projects.comparison import Change, Kind, changes_between
from projects.files.paths import NewFile
from projects.models import Project, Revision

pytestmark = pytest.mark.once

MakeRevision = Callable[..., Revision]


@pytest.fixture
def project(owner: User) -> Project:
    return create_project(by=owner, name="page")


@pytest.fixture
def revise(project: Project) -> MakeRevision:
    def revise(files: dict[str, bytes], *, executable: tuple[str, ...] = ()) -> Revision:
        new = [NewFile(path, content, path in executable) for path, content in files.items()]
        return add_revision(project, files=new, dependencies={}, strategy={})

    return revise


# --- Files -----------------------------------------------------------------------------------------------------------


def test_files_are_added_removed_changed_and_renamed(revise: MakeRevision) -> None:
    same = {"same.txt": b"s", "run.sh": b"#!", "twin.txt": b"moved"}
    before = revise({**same, "gone.txt": b"12345", "changed.txt": b"abc", "old.txt": b"moved", "empty": b""})
    after = revise(
        {**same, "changed.txt": b"abd", "in/new.txt": b"moved", "more.txt": b"54321", "none": b""},
        executable=("run.sh",),
    )

    found = changes_between(before, after)

    assert found == [
        Change(Kind.CHANGED, "changed.txt", "changed.txt", 3, 3),
        Change(Kind.REMOVED, "empty", "", 0, 0),
        Change(Kind.REMOVED, "gone.txt", "", 5, 0),
        Change(Kind.RENAMED, "old.txt", "in/new.txt", 5, 5),
        Change(Kind.ADDED, "", "more.txt", 0, 5),
        Change(Kind.ADDED, "", "none", 0, 0),
        Change(Kind.CHANGED, "run.sh", "run.sh", 2, 2, mode=True),
    ]
    assert changes_between(after, after) == []


def test_one_changed_file_in_twenty_megabytes_is_found_fast(
    project: Project, revise: MakeRevision, browser: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    chance = random.Random(1)
    files = {f"src/{number}.bin": chance.randbytes(999_999) for number in range(20)}
    revise({**files, "a.txt": b"one\n"})
    revise({**files, "a.txt": b"two\n"})

    began = time.thread_time()
    with django_assert_max_num_queries(12):
        page = browser.get(f"/projects/{project.pk}/diff/1/2").content.decode()

    assert time.thread_time() - began < 3
    assert "1 file changed" in page
    assert ".bin" not in page


# --- The page --------------------------------------------------------------------------------------------------------


def test_each_change_is_shown_in_one_column_or_two(project: Project, revise: MakeRevision, browser: Client) -> None:
    long = [b"line %d" % number for number in range(1, 61)]
    revise({"a.txt": b"\n".join(long), "gone.bin": b"\0\1", "old.txt": b"as it was", "ends.txt": b"a\r\n"})
    long[29] = b"<script>alert(1)</script>\xe2\x80\xae"
    revise({"a.txt": b"\n".join(long), "new.txt": b"as it was", "ends.txt": b"a\n", "more.txt": b"one\ntwo\n"})

    page = browser.get(f"/projects/{project.pk}/diff/1/2").content.decode()
    split = browser.get(f"/projects/{project.pk}/diff/1/2?view=split").content.decode()
    back = browser.get(f"/projects/{project.pk}/diff/2/1?path=a.txt").content.decode()

    assert "5 files changed" in page
    assert '<span class="plus">+3</span> <span class="minus">\N{MINUS SIGN}1</span>' in page
    for text in (page, split):
        assert "<script>alert" not in text
        assert '&lt;script&gt;alert(1)&lt;/script&gt;<span class="unseen">U+202E</span>' in text
        assert "contain hidden characters" in text
        assert "26 unchanged lines" in text
        assert "27 unchanged lines" in text
        assert f'href="/projects/{project.pk}/code/2/a.txt?line=1"' in text
        assert "<bdi>old.txt</bdi> → <bdi>new.txt</bdi>" in text
        assert "This file is not text" in text
        assert "The lines are the same" in text
    assert '<tr class="removed"><td class="num">30</td><td class="num"></td><td class="sign">-</td>' in page
    assert '<td class="num removed">30</td><td class="txt removed">line 30</td><td class="num middle added">30' in split
    assert "All 5 changed files" in back
    assert "more.txt" not in back
    assert browser.get(f"/projects/{project.pk}/diff/1/2?path=nowhere").status_code == 404
    assert "Nothing has changed" in browser.get(f"/projects/{project.pk}/diff/2/2").content.decode()


def test_a_large_diff_is_cut_and_shown_by_file(project: Project, revise: MakeRevision, browser: Client) -> None:
    revise({"keep": b"k"})
    many = {f"f{number:03}.txt": b"x\n" * 1_000 for number in range(500)}
    revise({"keep": b"k", **many, "big.txt": b"y\n" * 500_000})

    began = time.thread_time()
    page = browser.get(f"/projects/{project.pk}/diff/1/2").content.decode()
    one = browser.get(f"/projects/{project.pk}/diff/1/2?path=f400.txt").content.decode()
    big = browser.get(f"/projects/{project.pk}/diff/1/2?path=big.txt").content.decode()

    assert time.thread_time() - began < 6
    assert "501 files changed" in page
    assert "lines in the 50 that are compared here" in page
    assert '"?path=f000.txt">Show this file by itself' in page
    assert 'href="?path=f400.txt"' in page
    assert "451 more files" in page
    assert one.count('<tr class="added">') == 1_000
    assert big.count('<tr class="added">') == 6_000
    assert "494,000 more lines are not shown" in big
    assert max(map(len, (page, one, big))) < 2_000_000
