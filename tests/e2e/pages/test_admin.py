"""An operator's work: find a failed build, read why, retry it; pause the queue and resume it."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.pages.chromium import DESKTOP, PHONE, PageMonitor, make_user, serious_violations, sign_in
from tests.installation import Installation, until

pytestmark = [pytest.mark.once, pytest.mark.waits]

FAILING = {"runtime": "static", "buildCommand": "echo '<img src=x onerror=alert(1)>' >&2; exit 3", "outputs": ["."]}


@pytest.fixture(scope="module")
def operator(chef: Installation) -> str:
    make_user(chef, "on-call", staff=True, groups=("operator",))
    return "on-call"


@pytest.fixture
def operator_page(chef: Installation, chrome: Browser, operator: str) -> Iterator[Page]:
    """An operator's page, checked like the tester's."""
    context = chrome.new_context(base_url=chef.url, viewport=DESKTOP)  # type: ignore[arg-type]
    context.set_default_timeout(15_000)
    page = sign_in(context, operator, at="/admin/")
    monitor = PageMonitor(page, chef.url)
    yield page
    context.close()
    assert monitor.problems == []


def test_an_operator_finds_reads_and_retries_a_failed_build(operator_page: Page, chef: Installation) -> None:
    name = "<script>alert(1)</script>"
    accepted = chef.submit({"index.html": "<h1>Hello</h1>"}, name=name, strategy=FAILING)
    assert chef.wait(accepted)["status"] == "failed"

    operator_page.get_by_role("link", name="Failed builds").click()
    expect(operator_page.get_by_role("row", name=name)).to_contain_text("build_failed")
    assert serious_violations(operator_page) == []
    operator_page.get_by_label("Search").fill(accepted["jobId"])
    operator_page.keyboard.press("Enter")
    operator_page.get_by_role("link", name=f"{name} #1").press("Enter")

    expect(operator_page.get_by_role("heading", level=1)).to_have_text(f"{name} #1")
    why = operator_page.get_by_role("region", name="Why")
    expect(why).to_contain_text("exit code 3")
    expect(operator_page.locator(".chef-log")).to_contain_text("<img src=x onerror=alert(1)>")
    assert serious_violations(operator_page) == []
    operator_page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert operator_page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    operator_page.get_by_role("link", name="Retry", exact=True).press("Enter")

    expect(operator_page.get_by_text("a new build of the same revision")).to_be_visible()
    assert serious_violations(operator_page) == []
    operator_page.get_by_role("button", name="Retry").press("Enter")
    expect(operator_page.get_by_text("Retried as #2").first).to_be_visible()
    operator_page.get_by_role("link", name="History").click()
    expect(operator_page.get_by_role("cell", name="on-call")).to_be_visible()
    [again] = [build for build in chef.get("/v1/builds")["results"] if build["retryOf"] == accepted["jobId"]]
    assert chef.wait(again)["status"] == "failed"


def test_pausing_the_queue_shows_on_waiting_builds(operator_page: Page, page: Page, chef: Installation) -> None:
    operator_page.get_by_role("link", name="Operations").click()
    expect(operator_page.get_by_role("img")).to_have_count(2)
    assert serious_violations(operator_page) == []
    operator_page.get_by_label("Reason").fill("The disk is full.")
    operator_page.get_by_role("button", name="Pause the queue").press("Enter")
    expect(operator_page.get_by_role("heading", name="Queue: paused")).to_be_visible()
    assert serious_violations(operator_page) == []

    accepted = chef.submit({"index.html": "<h1>Hello</h1>"}, name="waits", strategy={"runtime": "static"})
    page.goto(f"/builds/{accepted['jobId']}")
    expect(page.locator(".status.queued").first).to_be_visible()
    until(
        lambda: chef.status(accepted)["queue"]["blockedBy"] == "paused",
        seconds=10,
        what="the waiting build's page shows the pause",
    )
    with chef.client() as client:
        health = client.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "degraded")
    assert health.json()["checks"]["queue"]["paused"] is True
    assert chef.status(accepted)["status"] == "queued"

    operator_page.get_by_role("button", name="Resume the queue").press("Enter")
    expect(operator_page.get_by_text("The queue is resumed")).to_be_visible()
    assert chef.wait(accepted)["status"] == "completed"
    assert chef.get("/health")["checks"]["queue"]["paused"] is False


def test_other_admin_pages_obey_the_policy_and_are_accessible(operator_page: Page, chef: Installation) -> None:
    for path in (
        "/admin/builds/delivery/",
        "/admin/projects/project/",
        "/admin/projects/generation/",
        "/admin/auth/user/",
        "/admin/admin/logentry/",
        "/admin/queue/",
    ):
        operator_page.goto(path)
        expect(operator_page.locator("#site-name")).to_contain_text("Chef")
        if path != "/admin/queue/":  # django-rq's own page
            assert serious_violations(operator_page) == [], path
