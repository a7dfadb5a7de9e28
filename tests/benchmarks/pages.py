"""A build's page with a log of 100,000 lines, in Chromium: loading time, memory, scrolling, and the delay of new lines.

    python -m tests.benchmarks.pages [--lines N] [--rounds N] [--seconds S] [--json FILE]

Run by hand: timings vary by machine, so this is not a test, and the exit code only says whether measuring worked.
The browser renders without a GPU, on the same CPUs as the installation.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser, Page

from tests.benchmarks import chef
from tests.benchmarks.readers import percentile
from tests.e2e.pages.chromium import DESKTOP, chromium, make_user, sign_in
from tests.installation import Installation, until

MIB = 1024**2
AIM_OPEN, AIM_MEMORY, AIM_LIVE, AIM_FRAME = 1500.0, 150.0, 500.0, 50.0
READY = "html[data-log=ready]"
# Each line has its time in milliseconds since the epoch; the browser's clock is that of the same machine.
_SCRIPT = """
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
let text = "";
for (let number = 1; number <= {lines}; number++) {{
  const took = `in ${{number % 97}} ms ${{"and so on ".repeat(4)}}`;
  text += `${{number}} \\x1b[32mtransformed\\x1b[0m src/components/part-${{number}}.tsx ${{took}}\\n`;
  if (number % 500 === 0) {{ process.stdout.write(text); text = ""; await sleep(1); }}
}}
for (let end = Date.now() + {seconds} * 1000; Date.now() < end; await sleep(100)) {{
  console.log(`printed at ${{Date.now()}}`);
}}
"""
_WATCH = """() => {
  window.delays = [];
  const seen = new Set();
  new MutationObserver((changes) => {
    for (const { addedNodes } of changes) for (const node of addedNodes) {
      const at = /printed at (\\d+)/.exec(node.textContent)?.[1];
      if (at && !seen.has(at)) { seen.add(at); window.delays.push(Date.now() - Number(at)); }
    }
  }).observe(document.querySelector("#log-view"), { childList: true, subtree: true });
}"""
# Scrolls like a wheel, jumps like a scroll bar, and back; returns milliseconds of each frame.
_SCROLL = """async () => {
  const view = document.querySelector("#log-view"), frames = [];
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  view.scrollTop = 0;
  for (let waited = 0; waited < 10; waited++) await frame();
  let before = await frame();
  for (let step = 0; step < 300; step++) {
    if (step % 50 === 49) view.scrollTop = ((step * 7919) % 100) / 100 * view.scrollHeight;
    else view.scrollTop += step < 200 ? 120 : -600;
    const now = await frame();
    frames.push(now - before);
    before = now;
  }
  return frames;
}"""

_WRAP = """async () => {
  const began = performance.now();
  document.querySelector("#log-wrap").click();
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - began;
}"""


@dataclass(frozen=True)
class Result:
    """Milliseconds, MiB, and pixels."""

    lines: int
    log_mib: float
    shown: float  # until the last lines are shown, as rendered by the server
    ready: float  # until the whole log can be scrolled and searched
    search: float
    wrapping: float
    heap: float
    renderer_pss: float
    renderer_rss: float
    empty_pss: float
    frame_p50: float
    frame_p95: float
    frame_most: float
    live_p50: float
    live_p95: float
    live_most: float
    live_lines: int
    moved: float  # how far a line in view moved while new lines arrived
    transferred: float  # KiB of the page, its styles and scripts, as transferred

    def lines_of_table(self) -> list[str]:
        return [
            f"{self.lines:,} lines, {self.log_mib:.1f} MiB; {self.live_lines} live lines",
            _row("opened: the last lines are shown", self.shown, "ms", AIM_OPEN),
            _row("opened: the whole log is loaded", self.ready, "ms", AIM_OPEN),
            _row("a search through the whole log", self.search, "ms"),
            _row("wrapping the whole log", self.wrapping, "ms"),
            _row("JavaScript's heap", self.heap, "MiB", AIM_MEMORY),
            _row("renderer process, PSS", self.renderer_pss, "MiB", AIM_MEMORY),
            _row("renderer process, RSS", self.renderer_rss, "MiB"),
            _row("renderer process of an empty page, PSS", self.empty_pss, "MiB"),
            _row("a frame while scrolling, p50", self.frame_p50, "ms"),
            _row("a frame while scrolling, p95", self.frame_p95, "ms", AIM_FRAME),
            _row("a frame while scrolling, longest", self.frame_most, "ms"),
            _row("from printing a line to showing it, p50", self.live_p50, "ms"),
            _row("from printing a line to showing it, p95", self.live_p95, "ms", AIM_LIVE),
            _row("from printing a line to showing it, longest", self.live_most, "ms", AIM_LIVE),
            _row("a line in view moves while lines arrive", self.moved, "px", 0),
            _row("page, styles and scripts as sent, without log", self.transferred, "KiB", 100),
        ]


def _row(name: str, value: float, unit: str, aim: float | None = None) -> str:
    verdict = "" if aim is None else f"   aim: at most {aim:g}: {'met' if value <= aim else 'missed'}"
    return f"{name:<52} {value:>8.1f} {unit:<3}{verdict}"


def measure(installation: Installation, *, lines: int, rounds: int, seconds: float) -> Result:
    make_user(installation, "tester")
    package = {"name": "x", "version": "1.0.0", "scripts": {"build": "node build.mjs"}}
    script = _SCRIPT.format(lines=lines, seconds=2 * seconds + 20)
    files = {"package.json": json.dumps(package), "build.mjs": script}
    build = installation.submit(files, strategy={"runtime": "node", "outputs": ["dist"]})
    until(lambda: "printed at" in _tail(installation, build), seconds=120, what=f"{lines:,} lines are printed")
    path = f"/builds/{build['jobId']}"
    with chromium() as browser:
        page = _signed_in(browser, installation)
        delays, moved = _live(page, path, seconds)
        page.context.close()
    installation.wait(build, seconds=120)
    with chromium() as browser:
        page = _signed_in(browser, installation)
        page.goto("/login")
        empty = _renderer(browser)
        opened = [_open(page, path) for _ in range(rounds)]
        page.evaluate("document.querySelector('#log-view').scrollTop = 0")
        heap, renderer = _heap(page), _renderer(browser)
        frames: list[float] = page.evaluate(_SCROLL)
        search = _search(page)
        wrapping = float(page.evaluate(_WRAP))
        transferred = _transferred(page, path)
    size = len(installation.log_text(build).encode())
    return Result(
        lines=lines,
        log_mib=size / MIB,
        shown=statistics.median(shown for shown, _ in opened),
        ready=statistics.median(ready for _, ready in opened),
        search=search,
        wrapping=wrapping,
        heap=heap,
        renderer_pss=renderer.pss / MIB,
        renderer_rss=renderer.rss / MIB,
        empty_pss=empty.pss / MIB,
        frame_p50=percentile(frames, 50),
        frame_p95=percentile(frames, 95),
        frame_most=max(frames),
        live_p50=percentile(delays, 50),
        live_p95=percentile(delays, 95),
        live_most=max(delays),
        live_lines=len(delays),
        moved=moved,
        transferred=transferred,
    )


def _tail(installation: Installation, build: dict[str, Any]) -> str:
    return installation.log_text(build)[-200:]


def _signed_in(browser: Browser, installation: Installation) -> Page:
    viewport: Any = DESKTOP
    context = browser.new_context(base_url=installation.url, viewport=viewport)
    return sign_in(context, "tester")


def _open(page: Page, path: str) -> tuple[float, float]:
    """Milliseconds from the navigation's start until the last lines are shown, and until all are loaded."""
    page.goto("/login")
    page.goto(path)
    page.wait_for_selector(READY)
    shown = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    return float(shown), float(page.evaluate("performance.getEntriesByName('log-ready')[0].startTime"))


def _live(page: Page, path: str, seconds: float) -> tuple[list[float], float]:
    """Delays of live lines, and how far a line in view moves while others arrive."""
    page.goto(path)
    page.wait_for_selector(READY)
    time.sleep(2)
    page.evaluate(_WATCH)
    page.evaluate("document.querySelector('#log-view').scrollTop = 1e9")
    time.sleep(seconds)
    delays: list[float] = page.evaluate("window.delays")
    place = """() => {
      const top = (element) => element.getBoundingClientRect().top;
      const view = document.querySelector("#log-view");
      const row = [...view.querySelectorAll(".row")].find((one) => top(one) > top(view));
      return [row.querySelector(".n").textContent, top(row) - top(view)];
    }"""
    page.locator("#log-view").evaluate("view => { view.scrollTop -= 3000 }")
    time.sleep(0.5)
    number, top = page.evaluate(place)
    time.sleep(min(seconds, 5))
    later, later_top = page.evaluate(place)
    return delays, abs(20 * (int(later) - int(number)) + later_top - top)


def _renderer(browser: Browser) -> Any:
    """Memory of the largest renderer process: the page's."""
    session = browser.new_browser_cdp_session()
    found = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    each = [psutil.Process(one["id"]).memory_full_info() for one in found if one["type"] == "renderer"]
    return max(each, key=lambda memory: memory.pss)


def _heap(page: Page) -> float:
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    return float(metrics["JSHeapUsedSize"]) / MIB


def _search(page: Page) -> float:
    """Milliseconds until a text of the last lines is found, without the delay for further key presses."""
    begin = time.perf_counter()
    page.evaluate("""() => { const box = document.querySelector("#log-search"); box.value = "printed at";
      box.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" })); }""")
    page.locator("#log-found", has_text=" of ").wait_for()
    return 1000 * (time.perf_counter() - begin)


def _transferred(page: Page, path: str) -> float:
    """KiB transferred with an empty cache, without the log."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.clearBrowserCache")
    sizes: dict[str, float] = {}
    logs: set[str] = set()

    def note(event: Any) -> None:
        if "/log?" in event["request"]["url"]:
            logs.add(event["requestId"])

    session.on("Network.requestWillBeSent", note)
    session.on("Network.loadingFinished", lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]}))
    page.goto(path)
    page.wait_for_selector(READY)
    return sum(size for request, size in sizes.items() if request not in logs) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5, help="how often the page is opened")
    parser.add_argument("--seconds", type=float, default=15, help="how many seconds live lines are measured")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    # A short path, as the Unix sockets of egress proxies are in it.
    folder = Path(tempfile.mkdtemp(prefix="chef-pages-"))
    installation = chef.install(folder, workers=1)
    # The build phase gets half of it, and 100,000 lines of a hundred characters are ten million.
    installation.environment["CHEF_MAX_LOG_BYTES"] = "24m"
    try:
        installation.start()
        result = measure(installation, lines=options.lines, rounds=options.rounds, seconds=options.seconds)
    finally:
        installation.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(result.lines_of_table()))
    if options.json:
        options.json.write_text(json.dumps(asdict(result), indent=1))


if __name__ == "__main__":
    main()
