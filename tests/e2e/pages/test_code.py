"""Source files and diffs in a real browser: by mouse, by keyboard and without JavaScript."""

import base64
import re
import struct
import zlib
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.pages.chromium import PHONE, serious_violations
from tests.installation import Installation

pytestmark = [pytest.mark.once, pytest.mark.waits]

SCRIPT = "<script>document.title = 'taken over'</script>"
HOSTILE = "<img src=x onerror=alert(1)>.js"
LINES = [f"const line{number} = {number};" for number in range(1, 7001)]


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(3 * width) for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def project(chef: Installation) -> str:
    """The id of a project with two revisions."""
    files: list[dict[str, Any]] = [
        {"path": "index.html", "content": f"<!doctype html>\n{SCRIPT}\n<h1>Hello</h1>\n"},
        {"path": "src/main.js", "content": "\n".join(LINES)},
        {"path": HOSTILE, "content": f"// {SCRIPT}\nif (level !== 'user\u202e') grant()\n"},
        {"path": "src/deep/picture.png", "content": base64.b64encode(png(30, 20)).decode(), "encoding": "base64"},
    ]
    options = {"strategy": {"runtime": "static"}}
    with chef.client() as client:
        accepted = client.post("/v1/projects", json={"name": SCRIPT, "files": files, **options}).json()
        files[0]["content"] = f"<!doctype html>\n{SCRIPT}\n<h1>Good morning</h1>\n"
        answer = client.post(f"/v1/projects/{accepted['projectId']}/revisions", json={"files": files, **options})
        assert answer.status_code == 201, answer.text
    return str(accepted["projectId"])


def test_files_are_read_line_by_line(page: Page, project: str) -> None:
    page.on("dialog", lambda _: pytest.fail("a script of a file ran"))
    page.goto(f"/projects/{project}/code")
    expect(page.get_by_role("heading", name="index.html")).to_be_visible()
    expect(page.locator("#L2 .txt")).to_have_text(SCRIPT)
    assert "taken over" not in page.title() or SCRIPT in page.title()
    assert serious_violations(page) == []

    # By keyboard, into the tree and to a line.
    page.get_by_role("link", name="main.js").focus()
    page.keyboard.press("Enter")
    page.locator("#L1 a").click()
    page.locator("#L4 a").click(modifiers=["Shift"])
    assert page.url.endswith("#L1-L4")
    expect(page.locator("tr.chosen")).to_have_count(4)
    page.get_by_label("Line", exact=True).fill("6500")
    page.keyboard.press("Enter")
    expect(page.locator("#L6500")).to_be_in_viewport()
    assert page.url.endswith("?from=6001#L6500")
    page.goto(f"/projects/{project}/code/1/src/main.js#L3500-L3502")
    expect(page.locator("tr.chosen")).to_have_count(3)
    assert "from=3001" in page.url

    page.get_by_role("link", name="picture.png").click()
    assert page.get_by_role("img", name="The image").evaluate("image => image.complete && image.naturalWidth") == 30
    with page.expect_download() as download:
        page.get_by_role("link", name="Download", exact=True).click()
    assert download.value.suggested_filename == "picture.png"

    page.get_by_role("link", name="onerror").click()
    expect(page.get_by_text("contains hidden characters")).to_be_visible()
    expect(page.locator("#L2 .unseen")).to_have_text("U+202E")
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert serious_violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_diffs_are_read_and_everything_works_without_javascript(
    page: Page, project: str, chrome: Browser, chef: Installation
) -> None:
    page.goto(f"/projects/{project}/code/2")
    page.get_by_role("link", name="Changes since revision 1").click()
    expect(page.locator("tr.added .txt")).to_have_text("<h1>Good morning</h1>")
    expect(page.locator("tr.removed .txt")).to_have_text("<h1>Hello</h1>")
    assert serious_violations(page) == []
    page.get_by_role("link", name="Side by side").click()
    expect(page.locator("td.txt.added")).to_have_text("<h1>Good morning</h1>")
    assert serious_violations(page) == []

    context = chrome.new_context(
        base_url=chef.url, storage_state=page.context.storage_state(), java_script_enabled=False
    )
    plain = context.new_page()
    plain.goto(f"/projects/{project}/diff/1/2")
    plain.get_by_role("link", name="Show the file").click()
    plain.get_by_text("Other revisions").click()
    plain.get_by_role("link", name="Revision 1", exact=True).click()
    expect(plain.locator("#L3 .txt")).to_have_text("<h1>Hello</h1>")
    plain.get_by_role("link", name="main.js").click()
    plain.get_by_label("Line", exact=True).fill("3003")
    plain.get_by_role("button", name="Go").click()
    expect(plain).to_have_url(re.compile(r"from=3001#L3003$"))
    expect(plain.locator("#L3003")).to_be_in_viewport()
    context.close()
