"""What staff do at three in the morning: find what failed, read why, try it again; stop the queue, and start it."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.pages.chromium import DESKTOP, PHONE, Watched, make_user, serious_faults, sign_in
from tests.installation import Installation, until

pytestmark = [pytest.mark.once, pytest.mark.waits]

FAILING = {"runtime": "static", "buildCommand": "echo '<img src=x onerror=alert(1)>' >&2; exit 3", "outputs": ["."]}


@pytest.fixture(scope="module")
def operator(chef: Installation) -> str:
    make_user(chef, "night", staff=True, groups=("operator",))
    return "night"


@pytest.fixture
def night(chef: Installation, chrome: Browser, operator: str) -> Iterator[Page]:
    """The page of an operator, watched like any other."""
    context = chrome.new_context(base_url=chef.url, viewport=DESKTOP)  # type: ignore[arg-type]
    context.set_default_timeout(15_000)
    page = sign_in(context, operator, at="/admin/")
    watched = Watched(page, chef.url)
    yield page
    context.close()
    assert watched.faults == []


def test_an_operator_finds_a_failed_build_reads_why_and_retries_it(night: Page, chef: Installation) -> None:
    name = "<script>alert(1)</script>"
    accepted = chef.submit({"index.html": "<h1>Hello</h1>"}, name=name, strategy=FAILING)
    assert chef.wait(accepted)["status"] == "failed"

    night.get_by_role("link", name="Failed builds").click()
    expect(night.get_by_role("row", name=name)).to_contain_text("build_failed")
    assert serious_faults(night) == []
    night.get_by_label("Search").fill(accepted["jobId"])
    night.keyboard.press("Enter")
    night.get_by_role("link", name=f"{name} #1").press("Enter")

    expect(night.get_by_role("heading", level=1)).to_have_text(f"{name} #1")
    why = night.get_by_role("region", name="Why")
    expect(why).to_contain_text("exit code 3")
    expect(night.locator(".chef-log")).to_contain_text("<img src=x onerror=alert(1)>")
    assert serious_faults(night) == []
    night.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert night.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    night.get_by_role("link", name="Retry", exact=True).press("Enter")

    expect(night.get_by_text("a new build of the same revision")).to_be_visible()
    assert serious_faults(night) == []
    night.get_by_role("button", name="Retry").press("Enter")
    expect(night.get_by_text("Retried as #2").first).to_be_visible()
    night.get_by_role("link", name="History").click()
    expect(night.get_by_role("cell", name="night")).to_be_visible()
    [again] = [build for build in chef.get("/v1/builds")["results"] if build["retryOf"] == accepted["jobId"]]
    assert chef.wait(again)["status"] == "failed"


def test_the_queue_is_paused_and_resumed_and_who_waits_sees_it(night: Page, page: Page, chef: Installation) -> None:
    night.get_by_role("link", name="Operations").click()
    expect(night.get_by_role("img")).to_have_count(2)
    assert serious_faults(night) == []
    night.get_by_label("Reason").fill("The disk is full.")
    night.get_by_role("button", name="Pause the queue").press("Enter")
    expect(night.get_by_role("heading", name="Queue: paused")).to_be_visible()
    assert serious_faults(night) == []

    accepted = chef.submit({"index.html": "<h1>Hello</h1>"}, name="waits", strategy={"runtime": "static"})
    page.goto(f"/builds/{accepted['jobId']}")
    expect(page.locator(".status.queued").first).to_be_visible()
    until(
        lambda: chef.status(accepted)["queue"]["blockedBy"] == "paused",
        seconds=10,
        what="who waits is told of the pause",
    )
    with chef.client() as client:
        health = client.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "degraded")
    assert health.json()["checks"]["queue"]["paused"] is True
    assert chef.status(accepted)["status"] == "queued"

    night.get_by_role("button", name="Resume the queue").press("Enter")
    expect(night.get_by_text("The queue is resumed")).to_be_visible()
    assert chef.wait(accepted)["status"] == "completed"
    assert chef.get("/health")["checks"]["queue"]["paused"] is False


def test_the_other_pages_of_the_admin_keep_to_the_policy_and_can_be_used_by_all(
    night: Page, chef: Installation
) -> None:
    for path in (
        "/admin/builds/delivery/",
        "/admin/projects/project/",
        "/admin/projects/generation/",
        "/admin/auth/user/",
        "/admin/admin/logentry/",
        "/admin/queue/",
    ):
        night.goto(path)
        expect(night.locator("#site-name")).to_contain_text("Chef")
        if path != "/admin/queue/":  # RQ's own page
            assert serious_faults(night) == [], path
