"""Output files on pages: as a tree, by folder, one by one; nothing of them comes alive."""

from collections.abc import Callable
from urllib.parse import quote

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client

from builds.models import Artifact, Build
from builds.pages.file_tree import crumbs_of, listing_of, tree_of
from builds.queue import claim
from projects.jobs import Status

QueueBuild = Callable[..., Build]
Complete = Callable[..., Build]


@pytest.fixture
def complete(queue_build: QueueBuild) -> Complete:
    """A completed build of these files: bytes by name, and a media type where it matters."""

    def complete(files: dict[str, bytes], kinds: dict[str, str] | None = None) -> Build:
        build = queue_build()
        lease = claim("w")
        assert lease
        for number, (name, content) in enumerate(files.items()):
            key = default_storage.save(f"{build.pk}/1/{number}", ContentFile(content))
            kind = (kinds or {}).get(name, "text/plain")
            Artifact.objects.create(
                build=build, attempt=1, name=name, size=len(content), sha256="x", storage_key=key, content_type=kind
            )
        lease.end(Status.COMPLETED)
        return build

    return complete


def page_of(client: Client, build: Build, name: str) -> str:
    answer = client.get(f"/builds/{build.pk}/artifacts/{quote(name)}")
    assert answer.status_code == 200
    return answer.content.decode()


def test_a_tree_has_folders_with_what_is_below_them() -> None:
    names = ["b.txt", "a/z.txt", "a/b/c.txt", "a-b.txt"]

    root = tree_of(Artifact(name=name, size=10) for name in names)

    assert [folder.name for folder in root.folders] == ["a"]
    assert [name for name, _ in root.files] == ["a-b.txt", "b.txt"]
    assert (root.count, root.size) == (4, 40)
    assert (root.folders[0].count, root.folders[0].folders[0].path) == (2, "a/b")


def test_one_folder_of_many_tells_of_those_in_it() -> None:
    files = [Artifact(name=f"dist/{folder}/{number}.js", size=1) for folder in "xy" for number in range(50)]

    listing = listing_of([*files, Artifact(name="dist/index.html", size=5)], "dist")

    assert [(folder.name, folder.path, folder.count) for folder in listing.folders] == [
        ("x", "dist/x", 50),
        ("y", "dist/y", 50),
    ]
    assert [name for name, _ in listing.files] == ["index.html"]
    assert listing.size == 105
    assert listing_of(files, "nowhere").count == 0
    assert crumbs_of("a/b") == [("a", "a"), ("b", "a/b")]


def test_of_very_many_some_are_shown_and_the_rest_is_had_by_folder(complete: Complete, browser: Client) -> None:
    build = complete({"first.txt": b"x"})
    Artifact.objects.bulk_create(
        Artifact(build=build, attempt=1, name=f"dist/{number % 7}/{number}.js", size=1, sha256="x", storage_key="k")
        for number in range(1000)
    )

    page = browser.get(f"/builds/{build.pk}").content.decode()
    top = browser.get(f"/builds/{build.pk}/artifacts").content.decode()
    inner = browser.get(f"/builds/{build.pk}/artifacts", {"in": "dist/3"}).content.decode()

    assert "1001 files" in page
    assert page.count('class="file"') == 200
    assert f'<a href="/builds/{build.pk}/artifacts">All 1001 files' in page
    assert 'href="?in=dist"' in top
    assert top.count('class="file"') == 1
    assert inner.count('class="file"') == 143
    assert browser.get(f"/builds/{build.pk}/artifacts", {"in": "nowhere"}).status_code == 404


def test_code_is_coloured_and_inert(complete: Complete, browser: Client) -> None:
    build = complete({"dist/a b.js": b'const a = "<script>alert(1)</script>\xe2\x80\xae"; // x\n'})

    page = page_of(browser, build, "dist/a b.js")

    assert '<span class="kd">const</span>' in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert" not in page
    assert '<span class="unseen">U+202E</span>' in page
    assert f"/v1/projects/{build.project_id}/artifacts/dist/a%20b.js" in page


@pytest.mark.parametrize("kind", ["image/png", "image/svg+xml"])
def test_a_picture_is_shown_as_data(kind: str, complete: Complete, browser: Client) -> None:
    build = complete({"logo": b"<svg onload='alert(1)'>"}, {"logo": kind})

    page = page_of(browser, build, "logo")

    assert f'<img src="data:{kind};base64,' in page
    assert "onload" not in page


def test_what_cannot_be_shown_says_so(complete: Complete, browser: Client) -> None:
    files = {"a.bin": b"\x00\x01", "b.txt": b"\xff\xfe", "c.png": bytes(2 * 1024**2 + 1), "d.txt": b"line\n" * 100_000}
    build = complete(files, {"c.png": "image/png"})

    assert "This is no text and no picture" in page_of(browser, build, "a.bin")
    assert "This file is empty." in page_of(browser, build, "b.txt")  # nothing but the mark of UTF-16
    assert "too large to be shown" in page_of(browser, build, "c.png")
    assert "The beginning of the file." in page_of(browser, build, "d.txt")


def test_one_endless_line_is_shown_without_colours(complete: Complete, browser: Client) -> None:
    build = complete({"min.js": b"var a=1;" * 20_000})

    told = page_of(browser, build, "min.js").partition("<tbody>")[2].partition("</tbody>")[0]
    assert "158,000 more characters" in told
    assert told.count('<span class="') == 1


def test_only_a_page_offers_a_preview_and_only_what_is_there_is_shown(complete: Complete, browser: Client) -> None:
    build = complete({"index.html": b"<h1>", "a.txt": b"a"}, {"index.html": "text/html"})

    assert "Open a preview" in page_of(browser, build, "index.html")
    assert "Open a preview" not in page_of(browser, build, "a.txt")
    assert browser.get(f"/builds/{build.pk}/artifacts/b.txt").status_code == 404
