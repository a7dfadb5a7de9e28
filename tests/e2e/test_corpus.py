"""Real projects, working and broken, built by a running installation, through a client that knows only the API.

All are submitted before any is waited for, so that the workers build them in parallel.
"""

import hashlib
import io
import os
import re
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.client import ChefClient, Job, Json, ListedArtifact
from tests.e2e.corpus import (
    ATTRS,
    CLICK,
    COMPLETING,
    SITE_FILES,
    Files,
    Project,
    Sources,
    fetch,
    manifest,
    project,
    unpacked,
)
from tests.e2e.faulty import FAILING
from tests.installation import Installation, until

pytestmark = pytest.mark.once

BUILD_SECONDS = 240
DOWNLOADS_AT_ONCE = 4
LINE_SECONDS = 1.0

TEMPLATES = ["react-ts", "vue-ts", "svelte-ts", "vanilla"]
PACKAGES = {"click": ("click", CLICK), "attrs": ("attr", ATTRS)}
# The manager, the expected install command, and output that only this manager prints.
MANAGERS = {
    "npm": ("npm", "$ npm ci", "added 1 package in"),
    "pnpm": ("pnpm", "&& pnpm install --frozen-lockfile", "using pnpm v9."),
    "pnpm by its field": ("pnpm", " pnpm@9.15.9 && pnpm install", "using pnpm v9.15.9"),
    "yarn": ("yarn", "&& yarn install --frozen-lockfile", "yarn install v1."),
    "bun": ("bun", "$ bun install --frozen-lockfile", "bun install v1."),
}


@dataclass(frozen=True)
class Ended:
    """An ended build: its document, log and downloaded artifacts."""

    job: Job
    project: Project = field(repr=False)
    build: Json
    log: str = field(repr=False)
    listing: list[ListedArtifact]
    files: Files = field(repr=False)


# All submitted builds by name, once all have ended.
Corpus = dict[str, Ended]


@pytest.fixture(scope="module")
def sources(chef: Installation) -> Sources:
    return fetch()


@pytest.fixture(scope="module")
def client(chef: Installation) -> Iterator[ChefClient]:
    with ChefClient(chef.url, chef.token) as client:
        yield client


@pytest.fixture(scope="module")
def corpus(client: ChefClient, sources: Sources) -> Corpus:
    makers = {**COMPLETING, **{name: faulty.make for name, faulty in FAILING.items()}}
    projects = {name: make(sources) for name, make in makers.items()}
    jobs = {name: client.submit(each.body()) for name, each in projects.items()}
    return {name: _ended(client, job, projects[name]) for name, job in jobs.items()}


def _ended(client: ChefClient, job: Job, project: Project) -> Ended:
    build = client.wait(job, seconds=BUILD_SECONDS)
    listing = client.artifacts(job)
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        contents = [answer.content for answer in pool.map(client.download, listing)]
    files = {artifact.name: content for artifact, content in zip(listing, contents, strict=True)}
    return Ended(job, project, build, client.log_text(job), listing, files)


# --- Projects that complete --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPLETING)
def test_a_working_project_completes_on_its_first_attempt(corpus: Corpus, name: str) -> None:
    ended = corpus[name]

    assert ended.build["status"] == "completed", f"{ended.build['verdict']}\n{ended.log}"
    assert ended.build["verdict"] is None
    assert (ended.build["attempt"], ended.build["progress"]) == (1, 100)
    assert [phase["name"] for phase in ended.build["phases"]] == [
        "preparation",
        "installation",
        "build",
        "artifacts",
        "cleanup",
    ]
    assert {phase["status"] for phase in ended.build["phases"]} <= {"completed", "skipped"}
    assert all(entry["allowed"] for entry in ended.build["egress"])


@pytest.mark.parametrize("name", COMPLETING)
def test_every_download_matches_the_artifact_list(corpus: Corpus, name: str) -> None:
    ended = corpus[name]

    assert ended.listing
    for artifact in ended.listing:
        content = ended.files[artifact.name]
        assert (len(content), hashlib.sha256(content).hexdigest()) == (artifact.size, artifact.sha256), artifact.name


@pytest.mark.parametrize("name", [*TEMPLATES, "vite by dependencies"])
def test_a_vite_page_refers_to_existing_hashed_assets(corpus: Corpus, name: str) -> None:
    files = corpus[name].files

    page = files["dist/index.html"].decode()
    referred = re.findall(r'(?:src|href)="/(assets/[\w.-]+-[\w-]{8}\.(?:js|css))"', page)

    assert any(path.endswith(".js") for path in referred), page
    for path in referred:
        assert len(files[f"dist/{path}"]) > 1000, path


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_s_bundle_contains_its_page(corpus: Corpus, name: str) -> None:
    files = corpus[name].files

    bundle = b"".join(content for path, content in files.items() if re.fullmatch(r"dist/assets/.*\.js", path))
    pictures = [path for path in files if re.fullmatch(r"dist/assets/hero-[\w-]{8}\.png", path)]

    assert b"Get started" in bundle
    assert b"Count is" in bundle
    assert [files[path] for path in pictures] == [corpus[name].project.files["src/assets/hero.png"]]
    assert files["dist/favicon.svg"] == corpus[name].project.files["public/favicon.svg"]


def test_a_dependency_that_is_only_named_is_bundled(corpus: Corpus) -> None:
    files = corpus["vite by dependencies"].files

    bundle = b"".join(content for path, content in files.items() if path.endswith(".js"))

    assert b"# By name" in bundle
    assert len(bundle) > 20_000  # marked's own code


@pytest.mark.parametrize("name", PACKAGES)
def test_a_source_release_gives_a_wheel_that_installs(corpus: Corpus, name: str, tmp_path: Path) -> None:
    module, version = PACKAGES[name]
    files = corpus[name].files
    wheel = next(Path(path).name for path in files if path.endswith(".whl"))
    (tmp_path / wheel).write_bytes(next(content for path, content in files.items() if path.endswith(wheel)))

    _run("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", "site", wheel, cwd=tmp_path)
    script = f"import importlib.metadata as m, {module}; print({module}.__file__, m.version('{name}'), sep='|')"
    place, found = _run("-c", script, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site")).strip().split("|")

    assert Path(place).is_relative_to(tmp_path / "site")
    assert found == version


@pytest.mark.parametrize("name", PACKAGES)
def test_a_source_release_gives_the_same_modules_in_both_forms(corpus: Corpus, name: str) -> None:
    files = corpus[name].files
    module, version = PACKAGES[name]

    wheel = zipped(files[f"dist/{name}-{version}-py3-none-any.whl"])
    sdist = unpacked(files[f"dist/{name}-{version}.tar.gz"])

    in_wheel = {path: content for path, content in wheel.items() if path.startswith(f"{module}/")}
    assert len(in_wheel) > 10
    assert in_wheel == {path: sdist[f"{name}-{version}/src/{path}"] for path in in_wheel}


@pytest.mark.parametrize("name", MANAGERS)
def test_the_project_decides_the_package_manager(corpus: Corpus, name: str) -> None:
    ended = corpus[name]
    manager, called, said = MANAGERS[name]

    command = next(line for line in ended.log.splitlines() if line.startswith("$ "))

    assert ended.build["strategy"]["packageManager"] == manager
    assert called in command
    assert said in ended.log
    assert ended.files == {"dist/index.html": b"<h1>Built</h1>\n<p>with <em>care</em></p>\n"}


def test_bun_bundles_typescript_with_its_dependency(corpus: Corpus) -> None:
    ended = corpus["bundled by bun"]

    assert (ended.build["strategy"]["runtime"], list(ended.files)) == ("bun", ["dist/main.js"])
    assert b"# By Bun" in ended.files["dist/main.js"]
    assert len(ended.files["dist/main.js"]) > 20_000  # marked itself


@pytest.mark.parametrize("name", ["static site", "files by dependencies"])
def test_files_that_need_no_build_are_returned_byte_for_byte(corpus: Corpus, name: str) -> None:
    ended = corpus[name]

    assert {path: ended.files.get(path) for path in ended.project.files} == ended.project.files
    assert not [path for path in ended.files if path.startswith("node_modules")]


def test_a_static_site_has_its_200_files_and_no_more(corpus: Corpus) -> None:
    ended = corpus["static site"]

    assert len(ended.files) == SITE_FILES
    assert next(each for each in ended.listing if each.name == "css/site.css").content_type == "text/css"


def test_a_python_app_runs_from_its_artifacts(corpus: Corpus, tmp_path: Path) -> None:
    _write(corpus["python app"].files, tmp_path)

    said = _run("main.py", cwd=tmp_path / "dist")

    assert said == "<h1>It runs</h1>\n"


def test_a_build_runs_on_the_requested_version(corpus: Corpus) -> None:
    ended = corpus["node 20"]

    assert ended.files["dist/version.txt"].startswith(b"20.")
    assert ended.build["strategy"]["version"] == "20"


# --- Projects that fail ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAILING)
def test_a_faulty_project_ends_with_the_expected_verdict(corpus: Corpus, name: str) -> None:
    ended, expected = corpus[name], FAILING[name]

    verdict = ended.build["verdict"]

    assert ended.build["status"] == "failed", ended.log
    found = (verdict["class"], verdict["code"], verdict["phase"], verdict["exitCode"])
    assert found == (expected.cls, expected.code, expected.phase, expected.exit_code), f"{verdict}\n{ended.log}"
    assert any(re.search(expected.evidence, line) for line in verdict["evidence"]), verdict
    assert verdict["retryable"] is False
    assert len(verdict["message"]) > 10
    assert len(verdict["hint"]) > 20


@pytest.mark.parametrize("name", FAILING)
def test_a_faulty_project_fails_in_one_phase_of_one_attempt_and_keeps_nothing(corpus: Corpus, name: str) -> None:
    ended, expected = corpus[name], FAILING[name]

    failed = {phase["name"]: phase["exitCode"] for phase in ended.build["phases"] if phase["status"] == "failed"}

    assert ended.build["attempt"] == 1
    assert failed == {expected.phase: expected.exit_code}
    assert ended.listing == []


# --- Logs --------------------------------------------------------------------------------------------------------

CLOCK = "for i in $(seq 1 30); do echo tick $i $(date +%s.%N); sleep 0.2; done; mkdir dist; date > dist/end.txt"
TICK = re.compile(r"^tick (\d+) ([\d.]+)$", re.MULTILINE)


def test_a_line_can_be_read_within_a_second_and_comes_once(client: ChefClient, corpus: Corpus) -> None:
    strategy = {"buildCommand": CLOCK, "outputs": ["dist"]}
    job = client.submit(project({"package.json": manifest()}, strategy=strategy).body())

    seen: list[int] = []
    delays: list[float] = []
    for page in client.log_pages(job):
        now = time.time()
        for number, printed in TICK.findall("".join(entry["text"] for entry in page["entries"])):
            seen.append(int(number))
            delays.append(now - float(printed))
        time.sleep(0.05)

    assert seen == list(range(1, 31))
    assert statistics.median(delays) < LINE_SECONDS, delays


@pytest.mark.parametrize("name", ["vue-ts", "click", "TypeScript error"])
def test_pages_of_any_size_give_the_same_log(client: ChefClient, corpus: Corpus, name: str) -> None:
    ended = corpus[name]

    whole = [entry for page in client.log_pages(ended.job, limit=1000) for entry in page["entries"]]
    one_by_one = [entry for page in client.log_pages(ended.job, limit=1) for entry in page["entries"]]

    assert one_by_one == whole
    assert [entry["sequence"] for entry in whole] == sorted({entry["sequence"] for entry in whole})
    assert {entry["attempt"] for entry in whole} == {1}
    assert re.sub(r"\x1b\[[0-9;:]*m", "", "".join(entry["text"] for entry in whole)) == ended.log


# --- After all of it ---------------------------------------------------------------------------------------------


def test_nothing_is_left_and_the_workers_are_healthy(chef: Installation, client: ChefClient, corpus: Corpus) -> None:
    until(lambda: not chef.leftovers(), seconds=30, what="no labelled container, volume or network is left")

    health = client.health()

    assert health["status"] == "ok"
    assert health["checks"]["workers"]["busy"] == 0
    assert all(process.poll() is None for process in chef.processes.values())
    assert {ended.build["attempt"] for ended in corpus.values()} == {1}


def zipped(archive: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(archive)) as package:
        return {name: package.read(name) for name in package.namelist()}


def _run(*arguments: str, cwd: Path, **environment: str) -> str:
    """The output of this interpreter, run in a folder, isolated from other packages of the environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=clean | environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _write(files: Files, folder: Path) -> None:
    for name, content in files.items():
        target = (folder / name).resolve()
        assert target.is_relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
