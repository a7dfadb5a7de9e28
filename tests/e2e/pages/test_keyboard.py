"""From signing in to deleting a project with the keyboard only: the tab key reaches every control."""

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.e2e.pages.chromium import DESKTOP, PASSWORD
from tests.installation import Installation

pytestmark = [pytest.mark.once, pytest.mark.waits]

MOST_TABS = 80
SLOW = '{"scripts": {"build": "sleep 60"}}'


def reach(page: Page, wanted: Locator) -> None:
    """Press the tab key until `wanted` has the focus, from the start of a freshly loaded page."""
    handle = wanted.element_handle()
    for _ in range(MOST_TABS):
        if handle.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the tab key does not lead to {wanted}")


def press(page: Page, name: str, *, role: str = "button") -> None:
    reach(page, page.get_by_role(role, name=name, exact=True).first)  # type: ignore[arg-type]
    page.keyboard.press("Enter")


def type_into(page: Page, label: str, text: str) -> None:
    reach(page, page.get_by_label(label, exact=True).first)
    page.keyboard.press("Control+A")
    page.keyboard.type(text)


def test_a_project_is_created_used_and_deleted_by_keyboard(chef: Installation, chrome: Browser, tester: str) -> None:
    site = chef.submit({"index.html": "<h1>Keys</h1>"}, name="keys", strategy={"runtime": "static"})
    chef.wait(site)
    slow = chef.submit({"package.json": SLOW}, name="slow keys")
    context = chrome.new_context(base_url=chef.url, viewport=DESKTOP)  # type: ignore[arg-type]
    page = context.new_page()

    page.goto("/login")
    type_into(page, "Username", tester)
    type_into(page, "Password", PASSWORD)
    page.keyboard.press("Enter")
    press(page, "keys", role="link")
    expect(page.get_by_role("heading", level=1)).to_have_text("keys")

    page.goto(f"/builds/{site['jobId']}")
    press(page, "Publish")
    expect(page.get_by_text("Release 1 is live.")).to_be_visible()
    page.goto(f"/builds/{site['jobId']}")
    press(page, "Retry")
    expect(page.get_by_text("Queued as build #2")).to_be_visible()
    page.goto(f"/builds/{slow['jobId']}")
    press(page, "Cancel")
    expect(page.get_by_text("Cancelled. What still runs is stopped within seconds.")).to_be_visible()

    page.goto(f"/projects/{site['projectId']}/settings")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    form = page.locator("form", has=page.get_by_role("button", name="Set it"))
    reach(page, form.get_by_label("Name"))
    page.keyboard.type("API_KEY")
    reach(page, form.get_by_label("Value"))
    page.keyboard.type("not to be seen")
    press(page, "Set it")
    expect(page.get_by_role("button", name="Remove API_KEY")).to_be_visible()
    expect(page.get_by_text("not to be seen")).to_have_count(0)
    form = page.locator("form", has=page.get_by_role("button", name="Delete the project"))
    reach(page, form.get_by_role("textbox"))
    page.keyboard.type("keys")
    press(page, "Delete the project")
    page.wait_for_url(f"{chef.url}/")
    expect(page.get_by_role("link", name="keys", exact=True)).to_have_count(0)
    context.close()
