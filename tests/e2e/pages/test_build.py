"""A build's page in a browser: live updates, from a verdict to its line, hostile output, and no JavaScript."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.e2e.pages.chromium import DESKTOP, PHONE, serious_violations, sign_in
from tests.installation import Installation

pytestmark = [pytest.mark.once, pytest.mark.waits]

expect.set_options(timeout=20_000)  # machines are slow at times

PACKAGE = json.dumps({"name": "x", "version": "1.0.0", "scripts": {"build": "node build.mjs"}})
MOST_BYTES = 100 * 1024
# All colours and tricks, a line with a source location, and 1,500 lines after it.
FAILING = r"""
console.log("\x1b[1;32mgood\x1b[0m \x1b[38;5;208morange\x1b[0m \x1b[38;2;90;90;255mblue\x1b[0m \x1b[44;97mon\x1b[0m");
console.log("\x1b[31mred goes on");
console.log("still\x1b[0m \x1b]0;title\x07\x1b[2J\x1b[5;5Hplain");
console.log("\u202egnp.exe\u202c zero\u200bwidth <script>alert(1)</script><img src=x onerror=alert(2)>");
console.log("half\rwhole");
console.log("wide ".repeat(400), "\tend");
console.error("src/<b>a</b>.ts(3,5): error TS2304: Cannot find name '<i>x</i>'.");
await new Promise((done) => setTimeout(done, 300));
for (let number = 1; number <= 1500; number++) console.log(`after ${number}`);
process.exitCode = 2;
"""
HOSTILE_NAME = "<script>alert(3)</script> \u202eevil"

# The first fully visible line, and its position.
PLACE = """view => {
  const top = (element) => element.getBoundingClientRect().top;
  const row = [...view.querySelectorAll(".row")].find((one) => top(one) > top(view));
  return [row.textContent, top(row) - top(view)];
}"""
HIDDEN = """isHidden => {
  Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.fixture(scope="module")
def failed(chef: Installation) -> dict[str, Any]:
    files = {"package.json": PACKAGE, "build.mjs": FAILING}
    strategy = {"runtime": "node", "outputs": ["dist"]}
    accepted = chef.submit(files, name=HOSTILE_NAME, strategy=strategy)
    assert chef.wait(accepted)["verdict"]["code"] == "type_error"
    return accepted


@pytest.fixture
def without_scripts(chef: Installation, chrome: Browser, tester: str) -> Iterator[Page]:
    viewport: Any = DESKTOP
    context = chrome.new_context(base_url=chef.url, viewport=viewport, java_script_enabled=False)
    context.set_default_timeout(15_000)
    yield sign_in(context, tester)
    context.close()


def open_build(page: Page, accepted: dict[str, Any], rest: str = "") -> None:
    page.goto(f"/builds/{accepted['jobId']}{rest}")
    page.wait_for_selector("html[data-log=ready]")


def line(page: Page, number: int) -> Any:
    return page.locator("#log-view .row", has=page.get_by_role("link", name=str(number), exact=True))


def test_a_build_is_watched_live_to_its_end_and_published(page: Page, chef: Installation) -> None:
    script = """import fs from "fs";
    for (let number = 1; number <= 200; number++) console.log(`before ${number}`);
    for (let number = 1; number <= 50; number++) {
      console.log(`step ${number}`);
      await new Promise((done) => setTimeout(done, 100));
    }
    fs.mkdirSync("dist/<i>", { recursive: true });
    fs.writeFileSync("dist/<i>/a & b.js", "const a = '<script>alert(4)</script>';");
    fs.writeFileSync("dist/index.html", `<h1>Hello</h1><script>
      try { parent.document.title = "taken over" } catch { document.querySelector("h1").textContent = "kept out" }
    </script>`);"""
    files = {"package.json": PACKAGE, "build.mjs": script}
    accepted = chef.submit(files, name="watched", strategy={"runtime": "node", "outputs": ["dist"]})
    streams: list[str] = []
    page.on("request", lambda request: streams.append(request.url) if "/stream" in request.url else None)

    open_build(page, accepted)
    page.evaluate("window.isSamePage = true")
    view = page.locator("#log-view")
    expect(view.get_by_text("step 3", exact=True)).to_be_visible()
    expect(page.locator(".status.running").first).to_be_visible()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    # After scrolling up, new lines do not move the view; a button leads back to the end.
    view.evaluate("view => { view.scrollTop -= 1500 }")
    expect(page.get_by_role("button", name="Jump to the end")).to_be_visible()
    looked_at, count = view.evaluate(PLACE), page.locator("#log-count").inner_text()
    expect(page.locator("#log-count")).not_to_have_text(count)
    assert view.evaluate(PLACE) == looked_at
    page.get_by_role("button", name="Jump to the end").click()
    expect(view.get_by_text(re.compile(r"^step \d+$")).last).to_be_in_viewport()
    # A hidden page closes its stream, and misses nothing.
    page.evaluate(HIDDEN, True)
    expect(view.get_by_text("step 50", exact=True)).not_to_be_attached(timeout=1)
    page.evaluate(HIDDEN, False)
    expect(page.locator("#state .status.completed")).to_be_visible()
    lines = chef.log_text(accepted).count("\n")
    expect(page.locator("#log-count")).to_have_text(f"{lines} lines")
    expect(page).to_have_title(re.compile("Completed"))
    expect(page.locator("#log-status")).to_contain_text("The build is completed.")
    expect(page.get_by_role("link", name="artifacts.zip")).to_be_visible()
    expect(page.locator(".timeline li")).to_have_count(5)
    assert page.evaluate("window.isSamePage")
    assert len(streams) == 2

    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_text("Release 1 is live.")).to_be_visible()
    expect(page.locator("#published .status.live + a")).to_have_attribute("href", re.compile("^http://watched"))
    assert serious_violations(page) == []

    page.get_by_role("link", name="a & b.js", exact=True).click()
    expect(page.locator("table.source")).to_contain_text("<script>alert(4)</script>")
    page.goto(f"/builds/{accepted['jobId']}/artifacts/dist/index.html")
    page.get_by_role("button", name="Open a preview").click()
    expect(page.frame_locator("iframe").get_by_role("heading", name="kept out")).to_be_visible()
    assert serious_violations(page) == []
    assert "taken over" not in page.title()


def test_a_verdict_leads_to_its_line_and_the_log_is_used_by_keyboard(page: Page, failed: dict[str, Any]) -> None:
    open_build(page, failed)
    link = page.locator(".evidence a")
    number = int(link.inner_text().removeprefix("line "))
    view = page.locator("#log-view")
    expect(view.get_by_text("after 1500", exact=True)).to_be_visible()  # the log opens at its end
    link.focus()
    page.keyboard.press("Enter")

    expect(line(page, number)).to_be_in_viewport()
    expect(line(page, number)).to_have_class(re.compile("here"))
    expect(line(page, number)).to_contain_text("error TS2304")
    assert page.evaluate("location.hash") == f"#L{number}"
    # The log now has the focus.
    page.keyboard.press("Home")
    expect(line(page, 1)).to_be_in_viewport()
    page.keyboard.press("End")
    expect(view.get_by_text("after 1500", exact=True)).to_be_in_viewport()
    page.keyboard.press("/")
    page.keyboard.type("AFTER 77")
    expect(page.locator("#log-found")).to_have_text("1 of 11")
    page.keyboard.press("Enter")
    expect(page.locator("#log-found")).to_have_text("2 of 11")
    expect(page.locator(".row.now mark")).to_have_text("after 77")
    expect(page.locator(".row.now .t")).to_have_text("after 770")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".row.now .t")).to_have_text("after 77")
    page.keyboard.press("Control+A")
    page.keyboard.type(":12")
    expect(line(page, 12)).to_have_class(re.compile("here"))
    page.keyboard.press("Escape")
    page.keyboard.press("[")
    expect(page.locator("#log-view .row")).to_have_count(0)
    page.get_by_role("button", name="Build").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#log-view .row").first).to_be_visible()
    expect(page.get_by_role("button", name="Build")).to_be_focused()
    page.get_by_role("button", name="Times").click()
    expect(page.locator("#log-view time").first).to_have_text(re.compile(r"^\d\d:\d\d:\d\d\.\d{3}$"))

    for size in (DESKTOP, PHONE):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        assert serious_violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # On a phone, lines of any length are wrapped: the list still knows the position of each.
    expect(page.get_by_role("button", name="Wrap")).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="Wrap").click()
    page.locator("#log-search").fill(":1000")
    expect(line(page, 1000)).to_be_in_viewport()
    assert page.locator("#log-view").evaluate("view => view.scrollWidth <= view.clientWidth")
    page.locator("#log-view").press("End")
    expect(view.get_by_text("after 1500", exact=True)).to_be_in_viewport()
    open_build(page, failed)
    page.evaluate("location.hash = '#L11-L14'")
    expect(page.locator(".row.here")).to_have_count(4)
    expect(page.get_by_role("button", name="Copy 11 to 14")).to_be_visible()


def test_output_is_inert_and_looks_the_same_with_and_without_javascript(
    page: Page, without_scripts: Page, failed: dict[str, Any]
) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    sizes: dict[str, float] = {}
    logs: set[str] = set()

    def note(event: dict[str, Any]) -> None:
        if "/log?" in event["request"]["url"]:
            logs.add(event["requestId"])

    session.on("Network.requestWillBeSent", note)
    session.on("Network.loadingFinished", lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]}))
    session.send("Network.clearBrowserCache")

    open_build(page, failed, "#L1")
    without_scripts.goto(f"/builds/{failed['jobId']}?log=1")
    markup = "rows => rows.slice(0, 14).map(row => row.querySelector('.t').innerHTML)"
    live = page.locator("#log-view .row").evaluate_all(markup)
    plain = without_scripts.content()

    expect(page.get_by_role("heading", level=1)).to_contain_text("<script>alert(3)</script> U+202Eevil #1")
    assert logs
    assert sum(size for request, size in sizes.items() if request not in logs) < MOST_BYTES
    text = "\n".join(live)
    assert '<span class="f4 bo">good</span>' in text
    assert '<span class="f0">still</span><span> plain</span>' in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=alert(2)&gt;" in text
    assert '<span class="unseen">U+202E</span>gnp.exe' in text
    assert "\x1b" not in text
    assert "\u202e" not in page.content() + plain
    for each in live:
        assert each in plain
    assert page.locator("#log-view :is(script, img), h1 script").count() == 0
    assert dialogs == []


def test_lines_that_the_browser_does_not_keep_come_from_the_server(page: Page, failed: dict[str, Any]) -> None:
    def without_the_first(route: Route) -> None:
        answer = route.fetch()
        log = answer.json()
        about = log["runs"][-1][1:]
        rest = log["text"].split("\n", 500)[-1]
        route.fulfill(response=answer, json={**log, "line": 501, "text": rest, "runs": [[len(rest), *about]]})

    page.route("**/log?after=*", without_the_first)
    open_build(page, failed)
    expect(page.locator("#log-count")).to_contain_text("those before 501 are in the raw text")
    page.locator("#log-search").fill(":20")
    expect(page.locator("#log-plain .row:target")).to_have_attribute("id", "L20")
    expect(page.locator("#log-plain .row:target")).to_be_in_viewport()
    page.locator("#log-search").fill(":700")
    expect(line(page, 700)).to_be_in_viewport()
    expect(page.locator("#log-plain")).to_be_hidden()


def test_everything_works_without_javascript(without_scripts: Page, chef: Installation, failed: dict[str, Any]) -> None:
    page = without_scripts
    page.goto(f"/builds/{failed['jobId']}")
    expect(page.locator("#log-plain .row").last).to_contain_text("after 1500")
    expect(page.locator("#log-tools")).to_be_hidden()
    page.locator(".evidence a").click()
    target = page.locator(".row:target")
    expect(target).to_contain_text("error TS2304")
    expect(target).to_be_in_viewport()
    page.get_by_role("link", name="Raw").click()
    expect(page.locator("body")).to_contain_text("<script>alert(1)</script>")

    page.goto(f"/builds/{failed['jobId']}")
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_text("of the same files as #1.")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_contain_text("#2")
    expect(page.locator("#state .status.failed")).to_be_visible()  # the page reloads itself until then


def test_a_build_is_cancelled_and_retried_by_keyboard(page: Page, chef: Installation) -> None:
    slow = 'console.log("begun"); await new Promise((done) => setTimeout(done, 60_000));'
    accepted = chef.submit({"package.json": PACKAGE, "build.mjs": slow}, strategy={"runtime": "node"})
    open_build(page, accepted)
    expect(page.locator("#log-view").get_by_text("begun", exact=True)).to_be_visible()

    page.get_by_role("button", name="Cancel").focus()
    page.evaluate(HIDDEN, True)
    with page.expect_response("**/state"):
        page.evaluate(HIDDEN, False)
    # The element that an update replaced has the focus again.
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#state .status.cancelled")).to_be_visible()
    expect(page.get_by_text("Cancelled. What still runs is stopped within seconds.")).to_be_visible()
    expect(page.locator(".verdict")).to_contain_text("cancelled by tester")
    page.wait_for_selector("html[data-log=ready]")
    page.get_by_role("button", name="Retry").focus()
    page.keyboard.press("Enter")

    expect(page.get_by_text("Queued as build #2")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_contain_text("#2")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#state .status.cancelled")).to_be_visible()
