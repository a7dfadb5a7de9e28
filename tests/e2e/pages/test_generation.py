"""A generation's page in a real browser: it updates live, and more slowly without JavaScript."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.pages.chromium import serious_violations
from tests.installation import Installation

pytestmark = [pytest.mark.once, pytest.mark.waits]


@pytest.fixture
def waiting(chef: Installation) -> Iterator[None]:
    """An installation whose generators the test starts itself."""
    chef.end("generators")
    yield
    if "generators" not in chef.processes:
        chef.start_generators()


def ask(chef: Installation, prompt: str) -> dict[str, Any]:
    with chef.client() as client:
        body = {"prompt": prompt, "strategy": {"runtime": "static"}}
        answer = client.post("/v1/generate", json=body, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def look(page: Page, *, is_hidden: bool) -> None:
    """Simulate a hidden or visible window."""
    page.evaluate(
        """isHidden => {
            Object.defineProperty(document, "hidden", {value: isHidden, configurable: true});
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        is_hidden,
    )


@pytest.mark.usefixtures("waiting")
def test_a_generation_is_cancelled_retried_and_watched_to_its_end(
    page: Page, chrome: Browser, chef: Installation
) -> None:
    prompt = "A page about <script>document.title = 'taken over'</script> bread"
    page.goto(f"/generations/{ask(chef, prompt)['generationId']}")
    expect(page.get_by_text("It waits for its turn.")).to_be_visible()
    expect(page.get_by_text(prompt).last).to_be_visible()
    assert serious_violations(page) == []
    page.get_by_role("button", name="Cancel").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("The generation is cancelled: it asks")).to_be_visible()
    assert serious_violations(page) == []
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_text("It waits for its turn.")).to_be_visible()

    # A hidden page has no open stream.
    with page.expect_event("requestfailed", lambda request: "/events?after=" in request.url):
        look(page, is_hidden=True)
    with page.expect_request(re.compile(r"/events\?after=")):
        look(page, is_hidden=False)

    context = chrome.new_context(
        base_url=chef.url, storage_state=page.context.storage_state(), java_script_enabled=False
    )
    plain = context.new_page()
    plain.goto(page.url)
    expect(plain.get_by_text("It waits for its turn.")).to_be_visible()
    page.evaluate("window.stayed = true")
    chef.start_generators()

    # Both pages update by themselves: one through events, the other by reloading.
    steps = page.get_by_label("Progress").get_by_role("listitem")
    expect(steps.last).to_have_class("done", timeout=60_000)
    assert page.evaluate("window.stayed")
    expect(page.locator("#said")).to_have_text(re.compile(r"Completed; build 1 is Completed"))
    expect(plain.get_by_label("Progress").get_by_role("listitem").last).to_have_class("done", timeout=15_000)
    assert serious_violations(page) == []
    context.close()

    page.get_by_role("link", name="index.html").click()
    expect(page.get_by_role("heading", name="index.html")).to_be_visible()
    assert page.title() != "taken over"
