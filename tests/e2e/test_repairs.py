"""The fix loop end to end: projects that a scripted model wrote with mistakes, built and repaired for real.

All are submitted at once and followed to their end; each test then checks its own. The model counts tokens as an
endpoint does: input, and output up to the allowed maximum.
"""

import json
import re
import subprocess
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.broken import BROKEN, CANCELLED, SUPERSEDED, UNREADABLE, Broken
from tests.e2e.client import Json
from tests.e2e.corpus import Files, unpacked
from tests.installation import ROOT, Installation, until
from tests.projects.engine.apps import written
from tests.scripted_model import KEY, Answer, Connection, Refuses, Says, ScriptedModel

pytestmark = [pytest.mark.once("postgresql"), pytest.mark.docker, pytest.mark.redis]

LOOP_SECONDS = 240
CHARS_PER_TOKEN = 4
PRICES = {"input": 2.5, "output": 10.0}  # per million tokens
TERMINAL = {"completed", "failed", "cancelled"}
ENTERED = [name for name, broken in BROKEN.items() if broken.repairs]
NEVER_ENTERED = [name for name, broken in BROKEN.items() if not broken.repairs]
REPAIRED = [name for name, broken in BROKEN.items() if broken.ending == "fixed"]


# --- The model -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """An answer that is sent once an event is set."""

    answer: Answer
    event: threading.Event

    def send(self, to: Connection) -> None:
        while not self.event.wait(0.05) and not to.closing.is_set():
            pass
        self.answer.send(to)


class Author:
    """Writes the broken projects as planned, and answers repair requests from their lists. `used`: for each project,
    the (input, output) tokens of every request."""

    def __init__(self) -> None:
        self.used: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        self.asked: defaultdict[str, list[str]] = defaultdict(list)
        self.answers = {name: deque(broken.answers) for name, broken in BROKEN.items()}
        self.may_continue = {UNREADABLE: threading.Event(), SUPERSEDED: threading.Event()}

    def __call__(self, key: str, body: Mapping[str, Any]) -> Answer | None:
        found = re.search(r"Make this one: (.+)\.\n", str(body["messages"][1]["content"]))
        assert found
        name = found[1]
        self.asked[name].append(key)
        if (answer := self._answer(name, key)) is None:
            return None  # a mistake in the test
        counted = answer if isinstance(answer, Refuses) else self._counted(name, answer, body)
        held = (name, key) in {(UNREADABLE, "plan"), (SUPERSEDED, "patch")}
        return Held(counted, self.may_continue[name]) if held else counted

    def _answer(self, name: str, key: str) -> Any:
        broken = BROKEN[name]
        if key == "plan":
            return broken.plan
        if key in broken.files:
            return written(broken.files[key])
        return self.answers[name].popleft() if key == "patch" and self.answers[name] else None

    def _counted(self, name: str, answer: str | Mapping[str, Any], body: Mapping[str, Any]) -> Says:
        text = answer if isinstance(answer, str) else json.dumps(answer)
        into = sum(len(message["content"].encode()) for message in body["messages"]) // CHARS_PER_TOKEN
        most = int(body.get("max_completion_tokens") or sys.maxsize)
        out = min(len(text) // CHARS_PER_TOKEN + 1, most)
        self.used[name].append((into, out))
        return Says(text[: out * CHARS_PER_TOKEN], finish="length" if out == most else "stop", usage=(into, out))


# --- Running the loops -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """An ended loop: the generation, its builds in order, and the files of every revision by number."""

    broken: Broken = field(repr=False)
    generation: Json
    builds: list[Json]
    revisions: Mapping[int, Files] = field(repr=False)
    artifacts: list[str]

    @property
    def repairs(self) -> list[Json]:
        return list(self.generation["fix"]["repairs"])

    @property
    def family(self) -> list[Json]:
        return [self.generation, *self.repairs]

    @property
    def details(self) -> str:
        """Details for the message of a failed assertion."""
        verdicts = [json.dumps(build["verdict"], indent=1) for build in self.builds]
        return "\n".join([json.dumps(self.generation["fix"], indent=1), *verdicts])


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel() as model:
        model.author = Author()
        yield model
    assert not model.faults


@pytest.fixture(scope="module")
def author(model: ScriptedModel) -> Author:
    assert isinstance(model.author, Author)
    return model.author


@pytest.fixture(scope="module")
def repairing(short_folder: Path, model: ScriptedModel) -> Iterator[Installation]:
    """An installation with a model."""
    folder = short_folder / "repairing"
    folder.mkdir()
    installation = Installation(
        folder,
        AI_PROVIDER="openai",
        AI_BASE_URL=model.url,
        AI_API_KEY=KEY,
        AI_PRICE_INPUT=str(PRICES["input"]),
        AI_PRICE_OUTPUT=str(PRICES["output"]),
        NO_PROXY="127.0.0.1",
        WORKER_CONCURRENCY="4",
    )
    try:
        yield installation.start()
    finally:
        installation.stop()


@pytest.fixture(scope="module")
def http(repairing: Installation) -> Iterator[httpx.Client]:
    with repairing.client() as client:
        yield client


@pytest.fixture(scope="module")
def ended(repairing: Installation, http: httpx.Client, author: Author) -> dict[str, Ended]:
    begun = {name: _begin(http, name, broken) for name, broken in BROKEN.items()}
    _lose_the_key(repairing, begun[UNREADABLE])
    author.may_continue[UNREADABLE].set()
    _cancel_its_build(http, begun[CANCELLED])
    until(lambda: "patch" in author.asked[SUPERSEDED], seconds=LOOP_SECONDS, what="a repair is requested")
    _change_project(http, begun[SUPERSEDED])
    author.may_continue[SUPERSEDED].set()
    return {name: _followed(http, name, generation) for name, generation in begun.items()}


def _begin(http: httpx.Client, name: str, broken: Broken) -> Json:
    config = {"enableAnalysis": False, "enableTests": False, "autoFix": True, **broken.config}
    body = {"prompt": f"Make this one: {name}.\nPlease.", "config": config, "strategy": broken.strategy}
    answer = http.post("/v1/generate", json=body, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def _lose_the_key(repairing: Installation, generation: Json) -> None:
    """Store a secret that was encrypted with a key that the installation does not have."""
    script = (
        "from projects.environment import Secret, set_environment\nfrom projects.models import Project\n"
        f"project = Project.objects.get(pk={generation['projectId']!r})\n"
        "set_environment(project, env=None, secrets={'TOKEN': Secret('0123456789')})\n"
    )
    environment = {**repairing.environment, "CHEF_SECRETS_KEY": "a key that has been lost " * 2}
    subprocess.run([sys.executable, "manage.py", "shell", "-c", script], cwd=ROOT, env=environment, check=True)


def _cancel_its_build(http: httpx.Client, generation: Json) -> None:
    def running() -> Json | None:
        builds = _builds(http, generation)
        return builds[0] if builds and builds[0]["status"] == "running" else None

    build = until(running, seconds=LOOP_SECONDS, what="the build runs")
    assert http.post(f"/v1/builds/{build['jobId']}/cancel").status_code == 202


def _change_project(http: httpx.Client, generation: Json) -> None:
    answer = http.post(f"/v1/projects/{generation['projectId']}/revisions", json={"files": {"index.html": "Mine."}})
    assert answer.status_code == 201, answer.text


def _followed(http: httpx.Client, name: str, begun: Json) -> Ended:
    address = f"/v1/generations/{begun['generationId']}"

    def over() -> Json | None:
        generation = _got(http, address).json()
        if BROKEN[name].ending is None:
            builds = _builds(http, begun)
            return generation if builds and builds[-1]["status"] in TERMINAL else None
        return generation if generation["fix"]["ending"] or generation["status"] in {"failed", "cancelled"} else None

    generation = until(over, seconds=LOOP_SECONDS, what=f"the loop of {name!r} ends", every=0.3)
    project = f"/v1/projects/{begun['projectId']}"
    numbers = [row["number"] for row in _got(http, f"{project}/revisions").json()["results"]]
    archives = {number: _got(http, f"{project}/revisions/{number}/archive").content for number in numbers}
    builds = _builds(http, begun)
    listing = _got(http, f"{project}/artifacts?jobId={builds[-1]['jobId']}").json()["artifacts"] if builds else []
    files = {number: unpacked(archive) for number, archive in archives.items()}
    return Ended(BROKEN[name], generation, builds, files, [row["name"] for row in listing])


def _builds(http: httpx.Client, generation: Json) -> list[Json]:
    """The project's builds that belong to a generation, oldest first."""
    rows = _got(http, f"/v1/builds?project={generation['projectId']}").json()["results"]
    return [row for row in reversed(rows) if row["generationId"]]


def _got(http: httpx.Client, address: str) -> httpx.Response:
    answer = http.get(address)
    assert answer.status_code == 200, answer.text
    return answer


# --- How loops end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BROKEN)
def test_a_loop_ends_for_the_expected_reason(ended: dict[str, Ended], name: str) -> None:
    loop, expected = ended[name], BROKEN[name]
    fix = loop.generation["fix"]

    codes = [build["verdict"] and build["verdict"]["code"] for build in loop.builds]
    errors = [repair["error"] and repair["error"]["code"] for repair in loop.repairs]

    assert loop.generation["status"] == "completed", loop.generation["error"]
    assert (fix["ending"], codes, errors) == (expected.ending, list(expected.builds), list(expected.repairs)), (
        loop.details
    )
    assert fix["bestRevision"] == expected.best
    assert len(loop.repairs) <= 3


# --- Repairs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENTERED)
def test_each_repair_is_built_as_the_child_of_the_failed_build(ended: dict[str, Ended], name: str) -> None:
    loop = ended[name]
    built = [repair for repair in loop.repairs if repair["status"] == "completed"]

    assert [build["generationId"] for build in loop.builds] == [
        loop.generation["generationId"],
        *(repair["generationId"] for repair in built),
    ]
    assert [build["jobId"] for build in loop.builds[1:]] == [repair["jobId"] for repair in built]
    assert [build["repairOf"] for build in loop.builds] == [None, *(build["jobId"] for build in loop.builds[:-1])]
    assert [build["revision"] for build in loop.builds] == list(range(1, len(loop.builds) + 1))


@pytest.mark.parametrize("name", ENTERED)
def test_a_repair_has_a_message_and_a_diff(ended: dict[str, Ended], name: str, tmp_path: Path) -> None:
    loop = ended[name]

    for repair in loop.repairs:
        if repair["status"] == "failed":
            assert (repair["revision"], repair["diff"], repair["jobId"]) == (None, "", None)
            continue
        before, after = (loop.revisions[repair["revision"] - back] for back in (1, 0))
        assert repair["message"]
        assert _patched(before, repair["diff"], tmp_path / str(repair["revision"])) == after


def _patched(files: Files, diff: str, folder: Path) -> Files:
    """The files after `git apply` of a diff."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    subprocess.run(["git", "apply", "-"], cwd=folder, input=diff.encode(), check=True, env={"GIT_DIR": "/dev/null"})
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", REPAIRED)
def test_a_repaired_build_has_an_output(ended: dict[str, Ended], name: str) -> None:
    assert ended[name].artifacts


# --- The project afterwards ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(BROKEN.keys() - {SUPERSEDED, "repairs are not wanted"}))
def test_the_project_continues_from_the_best_revision(ended: dict[str, Ended], name: str) -> None:
    loop = ended[name]
    newest, best = max(loop.revisions), loop.generation["fix"]["bestRevision"]

    assert loop.revisions[newest] == loop.revisions[best]
    # The best revision is restored only if it is not the newest already.
    assert newest == len(loop.builds) + (best != len(loop.builds))


def test_the_owner_s_own_revision_is_left_alone(ended: dict[str, Ended]) -> None:
    assert ended[SUPERSEDED].revisions[2] == {"index.html": b"Mine."}
    assert sorted(ended[SUPERSEDED].revisions) == [1, 2]


def test_nothing_leaves_the_project_s_folder(ended: dict[str, Ended]) -> None:
    paths = {path for loop in ended.values() for files in loop.revisions.values() for path in files}

    assert not [path for path in paths if "escape" in path or path.startswith("/") or ".." in path]


# --- Builds that are not repaired ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NEVER_ENTERED)
def test_the_model_is_not_asked_for_repairs_that_are_not_allowed(
    ended: dict[str, Ended], author: Author, name: str
) -> None:
    loop = ended[name]

    assert loop.repairs == []
    assert len(loop.builds) == 1
    assert "patch" not in author.asked[name]


def test_failures_of_other_classes_are_not_repaired(ended: dict[str, Ended]) -> None:
    classes = {loop.builds[-1]["verdict"]["class"] for loop in ended.values() if loop.broken.ending == "not_ours"}

    assert classes == {"infra", "limit", "policy", "cancelled"}


# --- Tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BROKEN)
def test_tokens_add_up_to_the_endpoint_s_reports(ended: dict[str, Ended], author: Author, name: str) -> None:
    loop = ended[name]

    used = [(one["tokens"]["input"], one["tokens"]["output"]) for one in loop.family]

    assert [sum(kind) for kind in zip(*used, strict=True)] == [
        sum(kind) for kind in zip(*author.used[name], strict=True)
    ]
    assert not any(one["tokens"]["estimated"] for one in loop.family)
    for one, (into, out) in zip(loop.family, used, strict=True):
        assert one["tokens"]["total"] == into + out
        assert one["cost"] == pytest.approx((into * PRICES["input"] + out * PRICES["output"]) / 1e6)


@pytest.mark.parametrize("name", BROKEN)
def test_a_generation_and_its_repairs_stay_within_the_token_limit(ended: dict[str, Ended], name: str) -> None:
    loop = ended[name]
    limits = {one["tokens"]["limit"] for one in loop.family}

    assert limits == {loop.broken.config.get("maxTokens", 200_000)}
    assert sum(one["tokens"]["total"] for one in loop.family) <= limits.pop()


# --- Afterwards ------------------------------------------------------------------------------------------------------


def test_no_answers_jobs_or_containers_are_left(
    repairing: Installation, ended: dict[str, Ended], author: Author
) -> None:
    assert {name: list(answers) for name, answers in author.answers.items() if answers} == {}
    assert repairing.rows("SELECT count(*) FROM projects_generation WHERE status IN ('queued', 'running')") == [(0,)]
    assert repairing.rows("SELECT count(*) FROM builds_build WHERE status IN ('queued', 'running')") == [(0,)]
    until(lambda: not repairing.leftovers(), seconds=30, what="no labelled container, volume or network is left")
