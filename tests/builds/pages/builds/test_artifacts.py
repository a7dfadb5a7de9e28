"""Output files on pages: as a tree, by folder, one by one; none of their content is executed."""

import struct
from collections.abc import Callable
from urllib.parse import quote

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client

from builds.models import Artifact, Build
from builds.queue.claims import claim
from chef.jobs.models import Status

pytestmark = pytest.mark.once

QueueBuild = Callable[..., Build]
Complete = Callable[..., Build]


@pytest.fixture
def complete(queue_build: QueueBuild) -> Complete:
    """A completed build with these files: contents by name, and some media types by name."""

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


def test_many_outputs_are_cut_and_the_rest_is_shown_by_folder(complete: Complete, browser: Client) -> None:
    build = complete({"first.txt": b"x"})
    Artifact.objects.bulk_create(
        Artifact(build=build, attempt=1, name=f"dist/{number % 7}/{number}.js", size=1, sha256="x", storage_key="k")
        for number in range(1000)
    )

    page = browser.get(f"/builds/{build.pk}").content.decode()
    top = browser.get(f"/builds/{build.pk}/artifacts").content.decode()
    inner = browser.get(f"/builds/{build.pk}/artifacts", {"in": "dist/3"}).content.decode()

    assert "1,001 files" in page
    assert page.count('class="file"') == 200
    assert f'<a href="/builds/{build.pk}/artifacts">All 1,001 files' in page
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


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 3, 2)


@pytest.mark.parametrize(
    ("kind", "content"), [("image/png", PNG), ("image/svg+xml", b"<svg onload='alert(1)'>")], ids=["png", "svg"]
)
def test_an_image_is_shown_as_a_data_uri(kind: str, content: bytes, complete: Complete, browser: Client) -> None:
    build = complete({"logo": content}, {"logo": kind})

    page = page_of(browser, build, "logo")

    assert f'<img src="data:{kind};base64,' in page
    assert "onload" not in page


def test_files_that_cannot_be_shown_say_so(complete: Complete, browser: Client) -> None:
    files = {"a.bin": b"\x00\x01", "b.txt": b"\xff\xfe", "c.svg": bytes(2 * 1024**2 + 1), "d.txt": b"line\n" * 100_000}
    build = complete(files, {"c.svg": "image/svg+xml"})

    assert "This is no text and no picture" in page_of(browser, build, "a.bin")
    assert "This file is empty." in page_of(browser, build, "b.txt")  # only a UTF-16 byte order mark
    assert "too large to be shown" in page_of(browser, build, "c.svg")
    assert "The beginning of the file." in page_of(browser, build, "d.txt")


def test_an_image_that_would_decode_into_gigabytes_is_not_shown(complete: Complete, browser: Client) -> None:
    bomb = PNG[:16] + struct.pack(">II", 60_000, 60_000)
    build = complete({"bomb.png": bomb, "no.png": b"\0\1"}, dict.fromkeys(("bomb.png", "no.png"), "image/png"))

    assert "too large to be shown" in page_of(browser, build, "bomb.png")
    assert "This is no text and no picture" in page_of(browser, build, "no.png")


def test_one_endless_line_is_shown_without_colours(complete: Complete, browser: Client) -> None:
    build = complete({"min.js": b"var a=1;" * 20_000})

    rows = page_of(browser, build, "min.js").partition("<tbody>")[2].partition("</tbody>")[0]
    assert "158,000 more characters" in rows
    assert rows.count('<span class="') == 1


def test_only_html_offers_a_preview_and_unknown_files_are_404(complete: Complete, browser: Client) -> None:
    build = complete({"index.html": b"<h1>", "a.txt": b"a"}, {"index.html": "text/html"})

    assert "Open a preview" in page_of(browser, build, "index.html")
    assert "Open a preview" not in page_of(browser, build, "a.txt")
    assert browser.get(f"/builds/{build.pk}/artifacts/b.txt").status_code == 404
