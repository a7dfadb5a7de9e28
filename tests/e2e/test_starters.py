"""The starters end to end: requested by a prompt, built by a running installation, used in a real browser.

They are filled with hostile texts, so that the tests show what the worst prompt gets.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from django.conf import settings
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from builds.runtimes.catalogue import runtime_tag
from projects.engine.starters import STARTERS, fill
from tests.e2e.browser import browser, served
from tests.e2e.client import ChefClient, Job, Json
from tests.e2e.corpus import Files
from tests.installation import Installation, until

pytestmark = pytest.mark.once

BUILD_SECONDS = 240

NAME = "A %MODE% \"app\" </title><script>alert('x')</script> {{ 1 }}"
# What follows a prompt's verb, and the words that select each starter.
DESCRIPTION = '${this} \\ `now` """ </script> %BASE_URL% {{ 2 + 2 }} 🥐 '
WORDS = {
    "react": "in React",
    "vue": "in Vue",
    "static": "on a landing page",
    "python": "in Python",
    "node-api": "in Express",
}
# The oldest supported Node version, which a strategy request may ask for.
ON_NODE_18 = "react on Node 18"
TITLES = {starter.key: starter.title for starter in STARTERS} | {ON_NODE_18: "React app"}
PLAIN = "Build a simple todo app with React"

APPS = ["react", "vue"]
PAGES = [*APPS, "static"]
NAMES = [*WORDS, ON_NODE_18]


@pytest.fixture(scope="module")
def client(chef: Installation) -> Iterator[ChefClient]:
    with ChefClient(chef.url, chef.token) as client:
        yield client


@pytest.fixture(scope="module")
def answers(chef: Installation) -> dict[str, Json]:
    """The answer to each prompt; all are sent before any build is waited for."""
    bodies: dict[str, Json] = {key: {"prompt": prompt_for(key), "name": NAME} for key in WORDS}
    bodies[ON_NODE_18] = {"prompt": PLAIN, "strategy": {"runtime": "node", "version": "18"}}
    with chef.client() as http:
        return {
            name: dict(http.post("/v1/generate", json=body).raise_for_status().json()) for name, body in bodies.items()
        }


@pytest.fixture(scope="module")
def jobs(answers: dict[str, Json]) -> dict[str, Job]:
    return {name: Job(answer["projectId"], answer["jobId"]) for name, answer in answers.items()}


def prompt_for(key: str) -> str:
    return f"Build me {DESCRIPTION}{WORDS[key]}"


def _filled(key: str) -> Files:
    starter = next(starter for starter in STARTERS if starter.key == key)
    return {file.path: file.content for file in fill(starter, prompt=prompt_for(key), name=NAME)}


@pytest.fixture(scope="module")
def builds(client: ChefClient, jobs: dict[str, Job]) -> dict[str, Json]:
    return {name: client.wait(job, seconds=BUILD_SECONDS) for name, job in jobs.items()}


@pytest.fixture(scope="module")
def outputs(
    client: ChefClient, jobs: dict[str, Job], builds: dict[str, Json], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A folder for each build, with its artifacts in it."""
    folders = {name: tmp_path_factory.mktemp("outputs") for name in jobs}
    for name, job in jobs.items():
        for artifact in client.artifacts(job):
            target = (folders[name] / artifact.name).resolve()
            assert target.is_relative_to(folders[name].resolve())
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(client.download(artifact).content)
    return folders


def paths(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- What is built -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_names_the_starter(answers: dict[str, Json], name: str) -> None:
    answer = answers[name]

    assert answer["status"] in {"queued", "running", "completed"}
    assert answer["filesGenerated"] == (len(_filled(name)) if name in WORDS else len(_filled("react")))
    assert answer["message"].startswith("Made from a starter, without a language model. ")
    assert TITLES[name] in answer["message"]


@pytest.mark.parametrize("name", NAMES)
def test_a_starter_is_built_on_its_first_attempt(
    client: ChefClient, jobs: dict[str, Job], builds: dict[str, Json], name: str
) -> None:
    build = builds[name]

    assert build["status"] == "completed", f"{build['verdict']}\n{client.log_text(jobs[name])}"
    assert build["attempt"] == 1
    assert all(entry["allowed"] for entry in build["egress"])


def test_a_lock_file_is_used_unchanged(client: ChefClient, jobs: dict[str, Job], builds: dict[str, Json]) -> None:
    commands = [builds[name]["strategy"]["installCommand"] for name in APPS]

    assert all(command.startswith("npm ci") for command in commands), commands


@pytest.mark.parametrize("name", [*APPS, ON_NODE_18])
def test_an_app_has_been_tested_and_bundled(
    client: ChefClient, jobs: dict[str, Job], outputs: dict[str, Path], name: str
) -> None:
    found = paths(outputs[name])

    assert {"dist/index.html", "dist/favicon.svg"} <= found
    assert sorted(Path(path).suffix for path in found if path.startswith("dist/assets/")) == [".css", ".js"]
    assert re.search(r"Tests +\d+ passed", client.log_text(jobs[name]))


def test_a_static_starter_s_output_is_its_files(outputs: dict[str, Path]) -> None:
    assert {path: (outputs["static"] / path).read_bytes() for path in paths(outputs["static"])} == _filled("static")


def test_a_package_gives_a_wheel_and_a_source_archive(outputs: dict[str, Path]) -> None:
    suffixes = sorted(re.sub(r".*-0\.1\.0", "", path) for path in paths(outputs["python"]))

    assert suffixes == ["-py3-none-any.whl", ".tar.gz"]


def test_a_packages_command_converts(outputs: dict[str, Path], tmp_path: Path) -> None:
    [wheel] = outputs["python"].glob("dist/*.whl")

    run("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", "site", str(wheel), cwd=tmp_path)

    assert run("-m", "converter", "26.2", "mi", "km", cwd=tmp_path / "site") == "26.2 mi = 42.1648 km\n"


@pytest.mark.slow
def test_a_package_passes_its_own_tests(tmp_path: Path) -> None:
    for path, content in _filled("python").items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)

    printed = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:django", cwd=tmp_path)

    assert re.search(r"^\d+ passed", printed, re.MULTILINE)


def run(*arguments: str, cwd: Path) -> str:
    """The output of this interpreter, run in a folder, isolated from other packages of the environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=clean, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# The API in the background, as its users start it; then a client that prints the answers to its requests.
ASK = """
npm start &
exec node -e '
const url = "http://127.0.0.1:3000/todos";
const headers = { "Content-Type": "application/json" };
const ask = async (address, options) => (await fetch(address, options)).json();
const started = () => fetch(url).catch(() => new Promise((later) => setTimeout(later, 100)).then(started));
await started();
const added = await ask(url, { method: "POST", headers, body: JSON.stringify({ title: "Buy flour" }) });
const done = await ask(`${url}/${added.id}`, { method: "PATCH", headers, body: JSON.stringify({ done: true }) });
const wrong = await ask(url, { method: "POST", headers, body: JSON.stringify({ title: "" }) });
const { todos } = await ask(url);
console.error(JSON.stringify({ done, wrong, todos }));
' --input-type=module
"""


def test_an_api_runs_from_its_output(outputs: dict[str, Path]) -> None:
    answers = _output_on_node(ASK, outputs["node-api"] / "dist")

    assert (answers["done"]["title"], answers["done"]["done"]) == ("Buy flour", True)
    assert answers["wrong"]["error"]["code"] == "invalid"
    assert answers["todos"] == [answers["done"]]


def _output_on_node(script: str, folder: Path) -> Json:
    """The JSON that a shell script writes to its standard error, run in a folder on Node without a network."""
    with contextlib.closing(docker.DockerClient(base_url=settings.DOCKER_HOST, timeout=60)) as engine:
        container = engine.containers.run(
            runtime_tag("node", "22"),
            ["sh", "-c", script],
            volumes=[f"{folder}:/app:ro"],
            working_dir="/app",
            network_mode="none",
            init=True,
            detach=True,
        )
        try:
            assert container.wait()["StatusCode"] == 0, container.logs().decode()
            report: Json = json.loads(container.logs(stdout=False).decode().splitlines()[-1])
            return report
        finally:
            container.remove(force=True, v=True)


# --- In a browser --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chrome() -> Iterator[Chrome]:
    with browser() as driver:
        yield driver


@pytest.fixture
def page(request: pytest.FixtureRequest, chrome: Chrome, outputs: dict[str, Path]) -> Iterator[Chrome]:
    """A starter's built page, opened with empty storage. Fails the test on any console message."""
    folder = outputs[request.param] / ("" if request.param == "static" else "dist")
    with served(folder) as url:
        chrome.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": url.rstrip("/"), "storageTypes": "all"})
        chrome.get(url)
        wait_until_rendered(chrome)
        yield chrome
        assert chrome.get_log("browser") == []


on_each_page = pytest.mark.parametrize("page", PAGES, indirect=True)
on_each_app = pytest.mark.parametrize("page", APPS, indirect=True)


def wait_until_rendered(page: Chrome) -> None:
    """Wait until the app has rendered, which is after the page has loaded."""
    until(lambda: page.find_elements(By.CSS_SELECTOR, "h1"), seconds=60, what="the page is rendered")


def reload(page: Chrome) -> None:
    page.refresh()
    wait_until_rendered(page)


def one(page: Chrome, css: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, css)


def todos(page: Chrome) -> list[tuple[str, bool]]:
    """The list: (title, whether it is ticked)."""
    rows = page.find_elements(By.CSS_SELECTOR, "main ul[aria-label=Todos] > li")
    return [(row.text, row.find_element(By.TAG_NAME, "input").is_selected()) for row in rows]


def focused(page: Chrome) -> str:
    return page.switch_to.active_element.accessible_name


def press(page: Chrome, *keys: str) -> None:
    for key in keys:
        page.switch_to.active_element.send_keys(key)


@on_each_page
def test_a_page_shows_its_texts_unchanged(page: Chrome, request: pytest.FixtureRequest) -> None:
    key = request.node.callspec.params["page"]
    assert one(page, "h1").text == page.title == NAME
    assert one(page, "meta[name=description]").get_attribute("content") == DESCRIPTION + WORDS[key]
    assert page.find_elements(By.CSS_SELECTOR, "body script:not([src])") == []


@on_each_page
@pytest.mark.parametrize("width", [320, 1280])
def test_a_page_fits_its_window(page: Chrome, width: int) -> None:
    metrics = {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("page", [*APPS, ON_NODE_18], indirect=True)
def test_todos_are_added_completed_and_removed(page: Chrome) -> None:
    one(page, "input[aria-label='New todo']").send_keys("Buy flour", Keys.ENTER)
    press(page, "Bake <b>bread</b>")
    one(page, "form button").click()
    assert todos(page) == [("Buy flour", False), ("Bake <b>bread</b>", False)]
    assert one(page, "[role=status]").text == "2 left"

    one(page, "li:first-child label").click()
    assert todos(page) == [("Buy flour", True), ("Bake <b>bread</b>", False)]
    assert one(page, "[role=status]").text == "1 left"

    reload(page)
    assert todos(page) == [("Buy flour", True), ("Bake <b>bread</b>", False)]

    one(page, "button[aria-label='Remove Bake <b>bread</b>']").click()
    assert todos(page) == [("Buy flour", True)]
    assert one(page, "[role=status]").text == "0 left"

    one(page, "footer button").click()
    assert todos(page) == []
    reload(page)
    assert todos(page) == []


@on_each_app
def test_todos_can_be_managed_by_keyboard(page: Chrome) -> None:
    page.execute_script("document.body.focus()")
    press(page, Keys.TAB, "Flour", Keys.ENTER, "Salt", Keys.ENTER, " ", Keys.ENTER)
    assert todos(page) == [("Flour", False), ("Salt", False)]

    press(page, Keys.TAB, Keys.TAB, Keys.SPACE)
    assert todos(page) == [("Flour", True), ("Salt", False)]
    assert focused(page) == "Flour"

    press(page, Keys.TAB, Keys.ENTER)
    assert todos(page) == [("Salt", False)]
    assert focused(page) == "Salt"

    press(page, Keys.TAB, Keys.ENTER)
    assert todos(page) == []
    assert focused(page) == "New todo"


@on_each_app
def test_invalid_stored_data_is_ignored(page: Chrome) -> None:
    page.execute_script("for (const key of Object.keys(localStorage)) localStorage[key] = '[{\"id\": 1}, null'")

    reload(page)

    assert todos(page) == []
    one(page, "input[aria-label='New todo']").send_keys("Buy flour", Keys.ENTER)
    assert todos(page) == [("Buy flour", False)]
