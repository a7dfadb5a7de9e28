"""The code pages: which file is shown and how, that it stays inert, and that large projects stay cheap."""

import struct
import time
from collections.abc import Callable, Sequence

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from builds.actions import queue_build
from projects.actions import add_revision, create_project
from projects.files.paths import NewFile
from projects.models import Project, Revision
from tests.chef.text.test_source_text import PNG

pytestmark = pytest.mark.once

MakeRevision = Callable[..., Revision]


@pytest.fixture
def project(owner: User) -> Project:
    return create_project(by=owner, name="page")


@pytest.fixture
def revise(project: Project) -> MakeRevision:
    def revise(files: dict[str, bytes] | Sequence[NewFile]) -> Revision:
        new = [NewFile(path, content) for path, content in files.items()] if isinstance(files, dict) else files
        return add_revision(project, files=new, dependencies={}, strategy={})

    return revise


def test_the_newest_revision_s_readme_is_shown_first(project: Project, revise: MakeRevision, browser: Client) -> None:
    revise({"a.py": b"old = 1\n"})
    second = revise({"a.py": b"new = 1\n", "README.md": b"# Read me first\n", "src/index.html": b"<p>"})
    build = queue_build(second, by=project.owner)

    page = browser.get(f"/projects/{project.pk}/code").content.decode()
    old = browser.get(f"/projects/{project.pk}/code/1").content.decode()
    inner = browser.get(f"/projects/{project.pk}/code/2/src/index.html").content.decode()

    assert "Read me first" in page
    assert f'href="/projects/{project.pk}/code/1"' not in page
    assert f'href="/projects/{project.pk}/code/1/README.md">Revision 1<' in page
    assert f'href="/builds/{build.pk}">#1 queued<' in page
    assert f'href="/projects/{project.pk}/diff/1/2"' in page
    assert f'href="/v1/projects/{project.pk}/revisions/2/archive"' in page
    assert '<span class="n">old</span>' in old
    assert '<tr id="L1"><td class="num"><a href="#L1"' in old
    assert f'href="/projects/{project.pk}/code/2/src/index.html" aria-current="page"' in inner
    assert f'href="/v1/projects/{project.pk}/revisions/2/files/src/index.html"' in inner


def test_missing_files_and_revisions_are_404(
    project: Project, revise: MakeRevision, browser: Client, other: User
) -> None:
    empty = browser.get(f"/projects/{project.pk}/code")
    revise({"a.py": b"x"})
    stranger = Client()
    stranger.force_login(other)

    assert "No files yet" in empty.content.decode()
    missing = browser.get(f"/projects/{project.pk}/code/1/b%00.py")
    assert missing.status_code == 404
    assert "Revision 1 has no file at this path" in missing.content.decode()
    for path in ("code/0", "code/2", "code/99999999999", "code/1/a.py?x", "diff/1/2", "diff/1/99999999999"):
        who = stranger if "?" in path else browser
        assert who.get(f"/projects/{project.pk}/{path}").status_code == 404


def test_staff_read_other_users_code_without_links_that_they_may_not_use(
    project: Project, revise: MakeRevision, db: None
) -> None:
    revise({"a.py": b"x = 1"})
    staff = Client()
    staff.force_login(User.objects.create_superuser("staff"))

    page = staff.get(f"/projects/{project.pk}/code").content.decode()

    assert '<span class="n">x</span>' in page
    assert "/revisions/" not in page


def test_names_and_contents_stay_inert(project: Project, revise: MakeRevision, browser: Client) -> None:
    name = "<img src=x onerror=alert(1)>.js"
    revise({name: b'"</td><script>alert(2)</script>"', "dir'\"&<b>/x.svg": b"<svg onload=alert(3)></svg>"})

    pages = [
        browser.get(f"/projects/{project.pk}/code/1/{path}").content.decode()
        for path in ("%3Cimg%20src=x%20onerror=alert(1)%3E.js", "dir'%22&%3Cb%3E/x.svg")
    ]

    for page in pages:
        assert page.count("<script") == 2  # htmx and the page's own script
        assert "<img" not in page
        assert "<svg onload" not in page
        assert "<b>/" not in page
    assert "alert(2)" in pages[0]
    assert "alert" in pages[1]


def test_hidden_characters_are_marked_with_a_warning(project: Project, revise: MakeRevision, browser: Client) -> None:
    revise(
        {"a.js": "if (user !== 'x\u202e ') {\u2066// admin\u2069\x1b".encode(), "b.txt": "Zürich 👩‍💻\tok\n".encode()}
    )

    page = browser.get(f"/projects/{project.pk}/code/1/a.js").content.decode()
    plain = browser.get(f"/projects/{project.pk}/code/1/b.txt").content.decode()

    assert "contains hidden characters" in page
    assert "\u202e" not in page
    for code in ("U+202E", "U+2066", "U+2069", "U+001B"):
        assert f'<span class="unseen">{code}</span>' in page
    assert "hidden characters" not in plain
    assert "Zürich 👩‍💻\tok" in plain


def test_images_are_shown_and_other_binary_files_say_so(
    project: Project, revise: MakeRevision, browser: Client
) -> None:
    huge = PNG[:16] + struct.pack(">II", 60_000, 60_000) + PNG[24:]
    revise({"a.png": PNG, "huge.png": huge, "x.bin": b"\0\1\2", "empty": b""})

    def page(path: str) -> str:
        return browser.get(f"/projects/{project.pk}/code/1/{path}").content.decode()

    assert 'src="data:image/png;base64,iVBOR' in page("a.png")
    assert "3 \N{MULTIPLICATION SIGN} 2 pixels" in page("a.png")
    assert "data:image" not in page("huge.png")
    assert "too large to be shown" in page("huge.png")
    assert "is not text, so it is not shown" in page("x.bin")
    assert "This file is empty" in page("empty")


def test_very_long_lines_and_large_files_are_cut_and_say_so(
    project: Project, revise: MakeRevision, browser: Client
) -> None:
    revise({"long.js": b"x" * 1_000_000, "many.py": b"x = 1\n" * 150_000, "blank.txt": b"\n" * 1_048_576})

    def page(path: str) -> str:
        began = time.thread_time()
        page = browser.get(f"/projects/{project.pk}/code/1/{path}").content.decode()
        assert time.thread_time() - began < 3
        assert len(page) < 1_000_000
        return page

    assert "998,000 more characters" in page("long.js")
    first = page("many.py")
    assert "Lines 1 to 3,000 of 150,000" in first
    assert "without colours" in first
    assert 'href="?from=3001"' in first
    assert 'id="L150000"' in page("many.py?from=147001")
    assert "Lines 1 to 3,000 of 1,048,576" in page("blank.txt?from=99999999")
    moved = browser.get(f"/projects/{project.pk}/code/1/many.py?line=7000")
    assert moved.headers["Location"] == f"/projects/{project.pk}/code/1/many.py?from=6001#L7000"


def test_a_thousand_files_and_a_hundred_revisions_cost_few_queries(
    project: Project, revise: MakeRevision, browser: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(60):
        queue_build(revise({"a.py": b"%d" % number}), by=project.owner)
    revise([NewFile(f"src/{number % 30}/file {number}.ts", b"export {}\n") for number in range(1000)])

    with django_assert_max_num_queries(12):
        page = browser.get(f"/projects/{project.pk}/code").content.decode()
    with django_assert_max_num_queries(12):
        browser.get(f"/projects/{project.pk}/diff/60/61")

    older = browser.get(f"/projects/{project.pk}/code?revision=3")

    assert older.headers["Location"] == f"/projects/{project.pk}/code/3"
    assert "Go to an older revision" in page
    assert f'href="/projects/{project.pk}/diff/60/61"' in page
    assert page.count(f'<li><a href="/projects/{project.pk}/code/61/src/') == 1000
    assert f'href="/projects/{project.pk}/code/61/src/0/file%200.ts"' in page
    assert len(page) < 400_000
