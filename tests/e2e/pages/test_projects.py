"""From a folder, pasted texts or a prompt to a live site, with secrets and tokens, in a real browser."""

import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.pages.chromium import PHONE, serious_violations, sign_in
from tests.installation import Installation, until

pytestmark = [pytest.mark.once, pytest.mark.waits]

HOSTILE = "<img src=x onerror=alert(1)>"
MAKE = "console.log('the key is ' + process.env.API_KEY); require('fs').mkdirSync('dist', {recursive: true});"
MAKE += "require('fs').writeFileSync('dist/index.html', '<h1>' + process.argv[2] + '</h1>')"


def drop(page: Page, folder: Path) -> None:
    """Drop a folder from the desktop onto the page's drop zone."""
    page.locator("#drop").scroll_into_view_if_needed()
    box = page.locator("#drop").bounding_box()
    assert box
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + 20}
        session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})
    session.detach()


def build_ended(chef: Installation, page: Page, *, status: str = "completed") -> str:
    """Wait until the page's build has ended with `status` and the page shows it; returns the build's id."""
    page.wait_for_url("**/builds/*")
    build = page.url.rstrip("/").rpartition("/")[2]
    until(lambda: chef.get(f"/v1/builds/{build}")["status"] == status, seconds=60, what=f"the build is {status}")
    expect(page.locator(f".status.{status}").first).to_be_visible(timeout=30_000)
    return build


def overview(chef: Installation, build: str) -> str:
    return f"/projects/{chef.get(f'/v1/builds/{build}')['projectId']}"


def seen(chef: Installation, slug: str) -> str:
    """The text served at a site's address."""
    host = f"{slug}.localhost:{chef.port}"
    with httpx.Client(trust_env=False) as client:
        return client.get(chef.url, headers={"Host": host}).text


def test_a_dropped_folder_becomes_a_live_site_with_a_secret_and_is_rolled_back(
    page: Page, chef: Installation, tmp_path: Path
) -> None:
    shop = tmp_path / "shop"
    for path, text in {
        "package.json": '{"scripts": {"build": "node make.js first"}}',
        "make.js": MAKE,
        "node_modules/left/index.js": "x",
        "src/deep/er/notes.txt": "x",
        f"src/{HOSTILE}.txt": "x",
    }.items():
        (shop / path).parent.mkdir(parents=True, exist_ok=True)
        (shop / path).write_text(text)

    page.get_by_role("link", name="New project").click()
    assert serious_violations(page) == []
    drop(page, shop)

    # The page shows what was detected and left out; then set another command and a secret.
    page.wait_for_url("**/new/*")
    expect(page.get_by_text("Node, because there is a package.json.")).to_be_visible()
    expect(page.get_by_text("Left out: node_modules (1)")).to_be_visible()
    expect(page.get_by_label("Name", exact=True)).to_have_value("shop")
    page.get_by_text("Show their names").click()
    expect(page.get_by_text(f"src/{HOSTILE}.txt")).to_be_visible()
    expect(page.get_by_label("Build command")).to_have_value("npm run build")
    page.get_by_label("Build command").fill("node make.js changed")
    page.get_by_text("Environment variables").click()
    page.get_by_label("Secrets").fill("API_KEY=a-rather-secret-value")
    assert serious_violations(page) == []
    page.get_by_role("button", name="Build it").click()
    first = build_ended(chef, page)
    where = overview(chef, first)
    log = chef.log_text({"projectId": where.rpartition("/")[2], "jobId": first})
    assert "the key is " in log
    assert "a-rather-secret-value" not in log

    # Publish; replace the secret, send the folder again with another command, and publish again.
    page.goto(f"{where}/releases")
    page.get_by_label("Name in the address").fill("dropped-shop")
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_text("Release 1 is live")).to_be_visible()
    assert seen(chef, "dropped-shop") == "<h1>changed</h1>"
    page.goto(f"{where}/settings")
    assert "a-rather-secret-value" not in page.content()
    page.locator("#variable_name").fill("API_KEY")
    page.locator("#variable_value").fill("another-secret-value")
    page.get_by_role("button", name="Set it").click()
    expect(page.get_by_text("API_KEY is set, from the next build on.")).to_be_visible()
    assert "another-secret-value" not in page.content()
    assert serious_violations(page) == []
    page.goto(where)
    page.get_by_role("link", name="Send new files").click()
    assert serious_violations(page) == []
    drop(page, shop)
    page.wait_for_url("**/new/*")
    expect(page.get_by_label("Build command")).to_have_value("node make.js changed")
    page.get_by_label("Build command").fill("node make.js again")
    assert serious_violations(page) == []
    page.get_by_role("button", name="Build it").click()
    build_ended(chef, page)
    page.goto(f"{where}/releases")
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_text("Release 2 is live")).to_be_visible()
    until(lambda: seen(chef, "dropped-shop") == "<h1>again</h1>", seconds=10, what="the new release is served")
    page.get_by_role("button", name="Make release 1 live").click()
    expect(page.get_by_text("Release 1 is live")).to_be_visible()
    until(lambda: seen(chef, "dropped-shop") == "<h1>changed</h1>", seconds=10, what="the old release is served")
    assert serious_violations(page) == []
    page.get_by_text("Take it down").click()
    page.get_by_role("button", name="Take the site down").click()
    expect(page.get_by_text("The site is down.")).to_be_visible()

    # Delete the project by typing its name.
    page.goto(f"{where}/settings")
    page.locator("#delete_name").fill("sho")
    page.get_by_role("button", name="Delete the project").click()
    expect(page.get_by_text("This is not the project's name")).to_be_visible()
    page.locator("#delete_name").fill("shop")
    page.get_by_role("button", name="Delete the project").click()
    expect(page.get_by_text("shop is deleted.")).to_be_visible()


def test_a_build_is_followed_on_the_overview_and_in_the_list_until_it_ends(page: Page, chef: Installation) -> None:
    build = '{"scripts": {"build": "sleep 2; mkdir dist; echo hi > dist/index.html"}}'
    accepted = chef.submit({"package.json": build}, name=HOSTILE, strategy={"runtime": "node"})

    page.goto("/")
    row = page.get_by_role("row").filter(has_text=HOSTILE)
    expect(row.locator(".status")).to_have_text(re.compile("Queued|Running"))
    page.goto(f"/projects/{accepted['projectId']}")
    expect(page.locator(".live-card .status.running")).to_be_visible()
    expect(page.locator(".live-card .status.completed")).to_be_visible(timeout=60_000)
    # Nothing is active: the page sends no more requests.
    expect(page.locator("#live[hx-get]")).to_have_count(0)
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert serious_violations(page) == []
    page.get_by_role("button", name="Build again").click()
    page.wait_for_url("**/builds/*")
    page.goto(f"/projects/{accepted['projectId']}/builds")
    expect(page.locator("tbody tr")).to_have_count(2)
    assert serious_violations(page) == []
    page.get_by_role("link", name="Completed").click()
    expect(page.get_by_role("link", name="Completed")).to_have_attribute("aria-current", "true")


def test_pasted_files_are_built_without_javascript_and_by_keyboard(chef: Installation, chrome: Browser) -> None:
    context = chrome.new_context(base_url=chef.url, java_script_enabled=False)
    context.set_default_timeout(15_000)
    page = sign_in(context, "tester", at="/new")

    def press(label: str, text: str) -> None:
        """Go to a field with Tab from the current focus, and type."""
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.locator(f"#{label}:focus").count():
                page.keyboard.type(text)
                return
        raise AssertionError(f"no way to {label} by Tab")

    press("paste-name", "typed")
    press("path-0", "../index.html")
    press("content-0", "<h1>typed</h1>")
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.locator("#paste button.primary").press("Enter")
    expect(page.locator("#faults")).to_contain_text("leaves the project's folder")
    expect(page.locator("#content-0")).to_have_value("<h1>typed</h1>")
    page.locator("#path-0").fill("index.html")
    page.locator("#paste button.primary").press("Enter")
    expect(page.get_by_text("A static site, because there is an index.html")).to_be_visible()
    page.get_by_role("button", name="Build it").press("Enter")
    build_ended(chef, page)
    # A chosen folder is sent with its paths, also without JavaScript.
    page.goto("/new")
    page.locator("#folder").set_input_files([Path(__file__).parent])
    page.locator("#upload button").click()
    expect(page.get_by_label("Name", exact=True)).to_have_value("pages")
    expect(page.get_by_text("Python, because the sources are Python.")).to_be_visible()
    context.close()


def test_a_prompt_becomes_a_project_from_a_starter(page: Page, chef: Installation) -> None:
    page.goto("/new")
    page.get_by_role("button", name="One more file").click()
    expect(page.locator("#path-2")).to_be_focused()
    page.locator("#upload button").click()
    expect(page.locator("#drop-said")).to_have_text("Choose a folder or an archive first, or drop one here.")
    page.locator("#archive").set_input_files({"name": "x.zip", "mimeType": "application/zip", "buffer": b"no zip"})
    page.locator("#upload button").click()
    expect(page.locator("#drop-said")).to_contain_text("not a tar, tar.gz or zip archive")
    page.get_by_label("What shall it be?").fill("A page about the weather, without any framework")
    page.get_by_label("Name").nth(1).fill("From a prompt")
    page.get_by_role("button", name="Write and build it").click()

    page.wait_for_url(re.compile("/(projects|generations)/"))
    projects = chef.get("/v1/projects")["results"]
    project = next(one for one in projects if one["name"] == "From a prompt")
    page.goto(f"/projects/{project['projectId']}")
    expect(page.locator(".live-card .status.completed")).to_be_visible(timeout=90_000)
    assert serious_violations(page) == []


def test_a_token_is_made_copied_used_and_revoked(page: Page, chef: Installation) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=chef.url)
    page.get_by_role("link", name="Tokens").click()
    page.get_by_label("Name").fill(HOSTILE)
    page.get_by_label("May").select_option("read")
    page.get_by_role("button", name="Make the token").click()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    token = str(page.evaluate("navigator.clipboard.readText()"))
    assert serious_violations(page) == []

    with chef.client(token) as client:
        assert client.get("/v1/projects").status_code == 200
        assert client.post("/v1/projects", json={"files": {"a": "b"}}).status_code == 403
        page.reload()
        assert token not in page.content()
        row = page.get_by_role("row").filter(has_text=HOSTILE)
        row.locator("summary").press("Enter")
        row.get_by_role("button").press("Enter")
        expect(page.get_by_text("is revoked: whoever still sends it is refused.")).to_be_visible()
        assert client.get("/v1/projects").status_code == 401
