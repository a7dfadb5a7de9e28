"""The code pages: what is shown of which file, that it stays inert, and that much of it costs little."""

import struct
import time
from collections.abc import Callable, Sequence

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from builds.actions import queue_build
from builds.pages.raster import MAX_PIXELS, raster_of
from builds.pages.source_text import html_lines, text_of
from builds.pages.tree import tree_of
from projects.actions import NewFile, add_revision, create_project
from projects.models import Project, Revision
from scripts.code_colours import DARK, FILE, LIGHT, colours, style_sheet
from tests.builds.pages.contrast import contrast

MakeRevision = Callable[..., Revision]
PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 3, 2) + b"\x08\x02\0\0\0" + bytes(20)


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


def test_what_is_not_there_is_told(project: Project, revise: MakeRevision, browser: Client, other: User) -> None:
    empty = browser.get(f"/projects/{project.pk}/code")
    revise({"a.py": b"x"})
    stranger = Client()
    stranger.force_login(other)

    assert "No files yet" in empty.content.decode()
    missing = browser.get(f"/projects/{project.pk}/code/1/b%00.py")
    assert missing.status_code == 404
    assert "Revision 1 has no file at this path" in missing.content.decode()
    for path in ("code/2", "code/99999999999", "code/1/a.py?x", "diff/1/2", "diff/1/99999999999"):
        who = stranger if "?" in path else browser
        assert who.get(f"/projects/{project.pk}/{path}").status_code == 404


def test_staff_read_what_is_someone_else_s_but_are_shown_no_door_that_is_shut(
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
        assert page.count("<script") == 2  # htmx and the page's own
        assert "<img" not in page
        assert "<svg onload" not in page
        assert "<b>/" not in page
    assert "alert(2)" in pages[0]
    assert "alert" in pages[1]


def test_what_is_hidden_is_shown_and_warned_of(project: Project, revise: MakeRevision, browser: Client) -> None:
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


def test_images_are_shown_and_what_is_neither_image_nor_text_is_told(
    project: Project, revise: MakeRevision, browser: Client
) -> None:
    huge = PNG[:16] + struct.pack(">II", 60_000, 60_000) + PNG[24:]
    revise({"a.png": PNG, "huge.png": huge, "big.png": PNG + bytes(600 * 1024), "x.bin": b"\0\1\2", "empty": b""})

    def page(path: str) -> str:
        return browser.get(f"/projects/{project.pk}/code/1/{path}").content.decode()

    assert 'src="data:image/png;base64,iVBOR' in page("a.png")
    assert "3 \N{MULTIPLICATION SIGN} 2 pixels" in page("a.png")
    for path in ("huge.png", "big.png"):
        assert "data:image" not in page(path)
        assert "too large to be shown" in page(path)
    assert "is not text, so it is not shown" in page("x.bin")
    assert "This file is empty" in page("empty")


RASTERS = {
    "png": (PNG, ("image/png", 3, 2)),
    "gif": (b"GIF89a" + struct.pack("<HH", 7, 5), ("image/gif", 7, 5)),
    "jpeg": (
        b"\xff\xd8\xff\xe0\0\x04ab" + b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, 20, 30, 1) + bytes(3),
        ("image/jpeg", 30, 20),
    ),
    "lossy webp": (b"RIFF\0\0\0\0WEBPVP8 " + bytes(10) + struct.pack("<HH", 40, 30), ("image/webp", 40, 30)),
    "lossless webp": (
        b"RIFF\0\0\0\0WEBPVP8L" + bytes(4) + b"\x2f" + struct.pack("<I", 9 | 4 << 14),
        ("image/webp", 10, 5),
    ),
    "extended webp": (b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + b"\x09\0\0\x04\0\0", ("image/webp", 10, 5)),
    "svg": (b"<svg width='3' height='2'/>", None),
    "cut png": (PNG[:18], None),
    "cut jpeg": (b"\xff\xd8\xff\xe0\xff", None),
    "unknown webp": (b"RIFF\0\0\0\0WEBPXXXX", None),
}


@pytest.mark.parametrize(("content", "expected"), RASTERS.values(), ids=RASTERS.keys())
def test_an_image_is_what_its_bytes_say(content: bytes, expected: tuple[str, int, int] | None) -> None:
    found = raster_of(content)

    assert (found and (found.media_type, found.width, found.height)) == expected
    if found:
        assert found.can_be_shown(1000)
        assert not found.can_be_shown(2**20)
    assert MAX_PIXELS < 60_000**2


ENCODINGS = {
    "UTF-8": ("é\r\nb\rc".encode(), (["é", "b", "c"], "")),
    "UTF-8 with its mark": ("\ufeffé\n".encode(), (["é"], "")),
    "UTF-16": ("é\n".encode("utf-16"), (["é"], "UTF-16")),
    "UTF-16, the other way": (b"\xfe\xff" + "é\n".encode("utf-16-be"), (["é"], "UTF-16")),
    "an old one": ("né\n".encode("latin-1") * 3, (["né"] * 3, "Windows-1252")),
    "a broken one": (b"\xff\xfe\x00", (["\ufffd"], "UTF-16")),
    "no text": (b"a\0b", None),
    "no text without zeros": (bytes(range(1, 32)) * 20 + b"\xff", None),
    "nothing": (b"", ([], "")),
}


@pytest.mark.parametrize(("content", "expected"), ENCODINGS.values(), ids=ENCODINGS.keys())
def test_text_is_read_whatever_its_encoding(content: bytes, expected: tuple[list[str], str] | None) -> None:
    found = text_of(content)

    assert (found and (found.lines, found.encoding)) == expected


def test_very_long_lines_and_large_files_are_cut_and_told(
    project: Project, revise: MakeRevision, browser: Client
) -> None:
    revise({"long.js": b"x" * 1_000_000, "many.py": b"x = 1\n" * 150_000, "blank.txt": b"\n" * 1_048_576})

    def page(path: str) -> str:
        began = time.monotonic()
        page = browser.get(f"/projects/{project.pk}/code/1/{path}").content.decode()
        assert time.monotonic() - began < 3
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


@pytest.mark.parametrize("path", ["a.js", "a.tsx", "a.py", "a.html", "a.css", "a.json", "a.md", "a.yaml", "a.toml"])
def test_colours_change_no_line(path: str) -> None:
    lines = ["", "/* a", "", "b */ x = '<&>'", "```", '{"a": 1}', "<b>c</b>", "  ", ""]

    told, is_coloured = html_lines(lines, path, first=1, last=len(lines))

    assert is_coloured
    assert len(told) == len(lines)
    assert "&lt;&amp;" in told[3]


def test_colours_are_given_up_where_they_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builds.pages.source_text.COLOUR_SECONDS", -1)

    assert html_lines(["x = 1"], "a.py", first=1, last=1) == (["x = 1"], False)


def test_a_tree_has_folders_first_and_opens_where_one_is() -> None:
    files = [("b.txt", 1), ("A/x/y.txt", 2), ("A/z.txt", 3), *((f"many/{number}", 0) for number in range(40))]

    rows = tree_of(files, current="A/x/y.txt")

    told = [(row.kind, row.path, row.is_open) for row in rows if not row.path.startswith("many/")]
    assert told == [
        ("open", "A/", True),
        ("open", "A/x/", True),
        ("file", "A/x/y.txt", False),
        ("close", "", False),
        ("file", "A/z.txt", False),
        ("close", "", False),
        ("close", "", False),
        ("file", "b.txt", False),
    ]
    assert [row.is_open for row in rows if row.path == "many/"] == [False]


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

    assert page.count('<li><a href="/projects/') == 1000
    assert f'href="/projects/{project.pk}/code/61/src/0/file%200.ts"' in page
    assert len(page) < 400_000


def test_the_colours_are_those_that_pygments_makes_and_stand_out() -> None:
    assert FILE.read_text() == style_sheet(), "run .venv/bin/python -m scripts.code_colours"
    for style, backgrounds in ((LIGHT, ("ffffff", "fdf1d6")), (DARK, ("1f1c19", "33270d"))):
        for colour in colours(style):
            assert min(contrast(colour, background) for background in backgrounds) >= 4.5, (style, colour)


def test_colours_of_a_part_are_those_of_the_whole() -> None:
    lines = ["x = '''a", "b", "c'''", "y = 1"]

    whole, _ = html_lines(lines, "a.py", first=1, last=4)

    for last in (2, 3):
        assert html_lines(lines, "a.py", first=2, last=last) == (whole[1:last], True)
