import subprocess
import sys
from pathlib import Path

import pytest

import projects.engine

pytestmark = pytest.mark.once("postgresql")

ENGINE = Path(projects.engine.__file__).parent
ROOT = ENGINE.parent.parent


def test_only_one_module_imports_the_model_client_package() -> None:
    importers = [file.name for file in ENGINE.rglob("*.py") if "import openai" in file.read_text()]

    assert importers == ["client.py"]


def test_the_engine_needs_neither_django_nor_an_environment() -> None:
    code = (
        "import sys, projects.engine.pipeline, projects.engine.repairs.repair, projects.engine.repairs.decisions\n"
        "assert 'django' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={}, check=True)


def test_every_prompt_has_lines_of_limited_length() -> None:
    prompts = sorted((ENGINE / "model" / "prompts").glob("*.txt"))

    assert {prompt.stem for prompt in prompts} > {"intent", "plan", "code", "tests", "edit", "repair", "rules"}
    assert all(len(line) <= 120 for prompt in prompts for line in prompt.read_text().splitlines())
