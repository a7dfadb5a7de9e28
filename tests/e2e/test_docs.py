"""The commands in the docs, pasted into a shell: each must work on a running installation."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.place import ROOT
from tests.installation import Installation

pytestmark = pytest.mark.once

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# For example: PROJECT=…   # the `projectId` of the answer
_FROM_ANSWER = re.compile(r"^(\w+)=… +# the `(\w+)` of the answer\n", re.MULTILINE)
# Commands tested elsewhere, such as set-up and start; the environment file's variables are set here already.
_ELSEWHERE = r"\./scripts/|\. var/|AI_API_KEY=|export CHEF_WORKER_SECRET=|pip |CHEF_URL="
_NOT_HERE = re.compile(rf"^(?:{_ELSEWHERE}).*\n", re.MULTILINE)
# Error responses are failures.
_PRELUDE = 'set -euo pipefail; curl() { command curl --fail-with-body "$@"; };\n'


class Reader:
    """A shell user who pastes one block after another."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self._folder = folder
        self._environment = {**os.environ, **environment}
        self._answer = ""

    def paste(self, block: str) -> None:
        commands, *rest = _FROM_ANSWER.split(_NOT_HERE.sub("", block))
        self._run(commands)
        for name, field, following in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
            self._environment[name] = re.findall(rf'"{field}":"([^"]+)"', self._answer)[-1]
            self._run(following)

    def _run(self, commands: str) -> None:
        shell = subprocess.run(
            ["bash", "-c", _PRELUDE + commands],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert shell.returncode == 0, f"{commands}\n{shell.stdout[-2000:]}{shell.stderr}"
        self._answer = shell.stdout or self._answer


@pytest.fixture
def reader(chef: Installation, tmp_path: Path) -> Iterator[Reader]:
    """A reader with their own user and a folder with the named files; their projects are deleted afterwards."""
    for name in ("scripts", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    token = chef.make_token(tmp_path.name, scope="publish")
    yield Reader(tmp_path, CHEF_URL=chef.url, CHEF_TOKEN=token, NO_PROXY="127.0.0.1")
    with chef.client(token) as client:
        for project in client.get("/v1/projects").json()["results"]:
            client.delete(f"/v1/projects/{project['projectId']}").raise_for_status()


@pytest.mark.parametrize("page", ["README.md", "docs/api.md"])
def test_commands_work_as_written(reader: Reader, page: str) -> None:
    blocks = _BLOCK.findall((ROOT / page).read_text())

    for block in blocks:
        reader.paste(block)

    assert len(blocks) > 3
