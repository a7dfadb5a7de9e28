"""Published sites on a running installation: in a real browser, under load, and with a hostile site next to them."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

import httpx
import psutil
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.e2e.browser import browser
from tests.e2e.corpus import vite_template
from tests.installation import Installation

pytestmark = pytest.mark.once("postgresql")

STATIC = {"runtime": "static"}
PER_SECOND = 50


@pytest.fixture(scope="module")
def chrome() -> Iterator[webdriver.Chrome]:
    with browser() as driver:
        yield driver


def built(chef: Installation, files: dict[str, str], **body: Any) -> dict[str, Any]:
    accepted = chef.submit(files, **{"strategy": STATIC, **body})
    document = chef.wait(accepted)
    assert document["status"] == "completed", document["verdict"]
    return accepted


def ask(chef: Installation, path: str, body: dict[str, Any] | None = None, *, method: str = "POST") -> dict[str, Any]:
    with chef.client() as client:
        answer = client.request(method, path, json=body or {})
    assert answer.status_code in (200, 201, 204), answer.text
    return dict(answer.json()) if answer.content else {}


def published(chef: Installation, files: dict[str, str], slug: str) -> dict[str, Any]:
    accepted = built(chef, files)
    return ask(chef, f"/v1/projects/{accepted['projectId']}/publish", {"slug": slug})


def host_of(url: str) -> str:
    return url.removeprefix("http://")


def test_create_vite_s_react_app_opens_in_a_browser(chef: Installation, chrome: webdriver.Chrome) -> None:
    with chef.client() as client:
        answer = client.post("/v1/projects", json={**vite_template("react-ts").body(), "name": "Vite + React"})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert chef.wait(made, seconds=180)["status"] == "completed"
    release = ask(chef, f"/v1/projects/{made['projectId']}/publish")
    assert host_of(release["url"]) == f"vite-react.localhost:{chef.port}"

    for url in (release["url"], release["permanentUrl"]):
        chrome.get(url)
        WebDriverWait(chrome, 20).until(lambda driver: driver.find_elements(By.CSS_SELECTOR, "h1"))
        faults = [line for line in chrome.get_log("browser") if line["level"] == "SEVERE"]
        assert [line for line in faults if "favicon" not in line["message"]] == []
    with httpx.Client(trust_env=False) as client:
        page = client.get(chef.url, headers={"Host": host_of(release["url"]), "Accept-Encoding": "br"})
        script = page.text.partition('src="')[2].partition('"')[0]
        sent = client.get(
            urljoin(f"{chef.url}/", script), headers={"Host": host_of(release["url"]), "Accept-Encoding": "br"}
        )
    assert "immutable" in sent.headers["cache-control"]
    assert sent.headers["content-encoding"] == "br"


# --- Under load --------------------------------------------------------------------------------------------------


class Load:
    """Constant load on one page, PER_SECOND requests per second, with every answer recorded."""

    def __init__(self, chef: Installation, host: str) -> None:
        self._chef, self._host = chef, host
        self.seen: list[tuple[float, int, str]] = []
        self.faults: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(5)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        began = time.monotonic() + number / PER_SECOND
        with httpx.Client(base_url=self._chef.url, headers={"Host": self._host}, trust_env=False, timeout=10) as client:
            for turn in range(1_000_000):
                if self._stop.wait(max(began + turn * 5 / PER_SECOND - time.monotonic(), 0)):
                    return
                try:
                    answer = client.get("/")
                    self.seen.append((time.monotonic(), answer.status_code, answer.text))
                except httpx.HTTPError as error:
                    self.faults.append(repr(error))


def test_releases_are_switched_without_one_failed_request(chef: Installation) -> None:
    first = built(chef, {"index.html": "release 1"})
    path = f"/v1/projects/{first['projectId']}"
    release = ask(chef, f"{path}/publish", {"slug": "switched"})
    with chef.client() as client:
        answer = client.post(f"{path}/revisions", json={"files": {"index.html": "release 2"}, "strategy": STATIC})
    second = answer.json()
    assert chef.wait(second)["status"] == "completed"

    changes: list[tuple[float, str]] = []
    with Load(chef, host_of(release["url"])) as load:
        time.sleep(1.5)
        for action, number in (("publish", 2), ("releases/1/activate", 1), ("releases/2/activate", 2)):
            ask(chef, f"{path}/{action}")
            changes.append((time.monotonic(), f"release {number}"))
            time.sleep(1.5)

    assert load.faults == []
    assert {status for _, status, _ in load.seen} == {200}
    assert {text for _, _, text in load.seen} == {"release 1", "release 2"}
    for index, (at, text) in enumerate(changes):
        until_next = changes[index + 1][0] - 0.3 if index + 1 < len(changes) else float("inf")
        assert {seen for moment, _, seen in load.seen if at + 0.3 < moment < until_next} == {text}
    assert len(load.seen) > 3 * PER_SECOND


# --- A hostile site ----------------------------------------------------------------------------------------------

HOSTILE = """<!doctype html><title>hostile</title><script>
document.cookie = "chef-session=forged; path=/; domain=localhost";
document.cookie = "chef-csrf=forged; path=/; domain=localhost";
document.cookie = "chef-session=forged; path=/; domain=.localhost";
document.domain = "localhost";
</script>"""
WORKER = "self.addEventListener('fetch', (event) => event.respondWith(new Response('mine')))"
ATTACK = """
const done = arguments[arguments.length - 1], [api] = arguments;
const tried = {};
const read = (name, request) => request.then(
    async (answer) => { tried[name] = `${answer.type} ${answer.status} ${(await answer.text()).length}`; },
    (fault) => { tried[name] = `failed: ${fault.name}`; });
Promise.all([
    read("get", fetch(api + "/v1/projects", {credentials: "include"})),
    read("blind", fetch(api + "/v1/projects", {credentials: "include", mode: "no-cors"})),
    read("post", fetch(api + "/v1/generate", {method: "POST", credentials: "include",
        headers: {"Content-Type": "application/json"}, body: '{"prompt": "x"}'})),
    read("simple", fetch(api + "/v1/generate", {method: "POST", credentials: "include", mode: "no-cors",
        headers: {"Content-Type": "text/plain"}, body: '{"prompt": "x"}'})),
    navigator.serviceWorker.register("/worker.js", {scope: "/"}).then(() => { tried.worker = "own host"; }),
    navigator.serviceWorker.register(api + "/worker.js").then(
        () => { tried.foreign = "registered"; }, (fault) => { tried.foreign = fault.name; }),
    new Promise((resolve) => {
        const frame = document.createElement("iframe");
        frame.onload = () => {
            try { tried.frame = frame.contentDocument ? frame.contentDocument.body.innerText.length : "sealed"; }
            catch (fault) { tried.frame = fault.name; }
            resolve();
        };
        frame.src = api + "/login";
        document.body.append(frame);
    }),
]).then(() => done(tried));
"""


def test_a_hostile_site_cannot_reach_the_api_or_the_session(chef: Installation, chrome: webdriver.Chrome) -> None:
    chef.manage("shell", "--no-imports", "-c", _SIGN_UP)
    site = published(chef, {"index.html": HOSTILE, "worker.js": WORKER}, "hostile")
    application = f"http://localhost:{chef.port}"
    _sign_in(chrome, application)
    builds = chef.rows("SELECT count(*) FROM projects_generation")

    chrome.get(site["url"])
    tried = chrome.execute_async_script(ATTACK, application)

    assert tried["get"].startswith("failed")
    assert tried["post"].startswith("failed")
    assert tried["blind"] == "opaque 0 0"
    assert tried["simple"] == "opaque 0 0"
    assert tried["worker"] == "own host"
    assert tried["foreign"] == "SecurityError"
    assert tried["frame"] in ("SecurityError", "sealed", 0)
    assert chef.rows("SELECT count(*) FROM projects_generation") == builds
    chrome.switch_to.frame(0)
    assert chrome.find_elements(By.NAME, "password") == []
    chrome.switch_to.default_content()

    # The service worker controls only its own host, and the user's session is unchanged.
    chrome.get(site["url"])
    assert chrome.find_element(By.TAG_NAME, "body").text == "mine"
    chrome.get(f"{application}/admin/")
    cookies = {cookie["name"]: cookie for cookie in chrome.get_cookies()}
    assert "forged" not in {cookie["value"] for cookie in cookies.values()}
    assert cookies["chef-session"]["domain"] == "localhost"
    assert "victim" in chrome.page_source
    chrome.get(ask(chef, f"/v1/projects/{site['projectId']}/publish", {"slug": "hostile-two"})["url"])
    assert chrome.get_cookies() == []


_SIGN_UP = """
from django.contrib.auth.models import User
User.objects.create_superuser("victim", password="correct horse")
"""


def _sign_in(chrome: webdriver.Chrome, application: str) -> None:
    chrome.get(f"{application}/login")
    chrome.find_element(By.NAME, "username").send_keys("victim")
    chrome.find_element(By.NAME, "password").send_keys("correct horse")
    chrome.find_element(By.CSS_SELECTOR, "[type=submit]").click()
    WebDriverWait(chrome, 10).until(lambda driver: "/login" not in driver.current_url)


# --- Cached answers ----------------------------------------------------------------------------------------------


def raw(chef: Installation, *requests: str) -> str:
    """The answers to pipelined requests: sent at once, on one connection."""
    with socket.create_connection(("127.0.0.1", chef.port), timeout=10) as wire:
        wire.sendall("".join(requests).encode())
        return b"".join(iter(lambda: wire.recv(65536), b"")).decode()


def _headers(answer: httpx.Response) -> list[tuple[str, str]]:
    return sorted(header for header in answer.headers.multi_items() if header[0] != "date")


def test_cached_answers_equal_the_first_one(chef: Installation) -> None:
    site = published(chef, {"index.html": "one page", "other.html": "another"}, "ready")
    host = host_of(site["url"])
    with httpx.Client(base_url=chef.url, headers={"Host": host}, trust_env=False) as client:
        first, *again = (client.get("/") for _ in range(5))
        assert all((answer.text, answer.status_code) == ("one page", 200) for answer in [first, *again])
        assert all(_headers(answer) == _headers(first) for answer in again)
        assert client.get("/", headers={"Range": "bytes=0-2"}).text == "one"
        assert client.get("/", headers={"If-None-Match": first.headers["etag"]}).status_code == 304
        assert client.head("/").headers["content-length"] == "8"
        assert client.post("/").status_code == 405

    # Pipelined: each is answered in order, cached or not.
    def get(path: str, more: str = "", version: str = "1.1") -> str:
        return f"GET {path} HTTP/{version}\r\nHost: {host}\r\n{more}\r\n"

    close = "Connection: close\r\n"
    answer = raw(chef, get("/"), get("/other"), get("/"), get("/other"), get("/x"), get("/", close))
    bodies = [part.partition("HTTP/1.1")[0] for part in answer.split("\r\n\r\n")[1:]]
    assert bodies[:4] == ["one page", "another", "one page", "another"]
    assert "Page not found" in bodies[4]
    assert bodies[5] == "one page"
    assert raw(chef, get("/", version="1.0")).endswith("one page")
    assert raw(chef, get("/", f"Content-Length: 1\r\n{close}"), "x").endswith("one page")


# --- Previews and large files ------------------------------------------------------------------------------------


def test_a_preview_opens_and_a_large_file_costs_no_memory(chef: Installation, chrome: webdriver.Chrome) -> None:
    script = "mkdir dist && echo '<h1>Preview</h1>' > dist/index.html && head -c 300000000 /dev/zero > dist/large.bin"
    accepted = built(chef, {"x.txt": "x"}, strategy={**STATIC, "buildCommand": script, "outputs": ["dist"]})
    preview = ask(chef, f"/v1/builds/{accepted['jobId']}/preview")

    chrome.get(preview["url"])
    assert chrome.find_element(By.TAG_NAME, "h1").text == "Preview"
    web = psutil.Process(chef.processes["web"].pid)
    before, most, size = web.memory_info().rss, 0, 0
    with (
        httpx.Client(trust_env=False) as client,
        client.stream("GET", f"{chef.url}/large.bin", headers={"Host": host_of(preview["url"])}) as answer,
    ):
        for number, piece in enumerate(answer.iter_raw(256 * 1024)):
            size += len(piece)
            most = max(most, web.memory_info().rss) if not number % 100 else most
    assert size == 300_000_000
    assert most - before < 30 * 1024**2
