"""The helper scripts of the Python runtime, run as in a build: in the project's folder, by a real interpreter."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from builds.runtimes.python import toolbox

pytestmark = pytest.mark.once

TOOLBOX = Path(toolbox.__file__ or "").parent
ASSEMBLE = TOOLBOX / "assemble.py"
REQUIRES = TOOLBOX / "python_requires.py"

# A package whose backend asks for more requirements when it runs, as with setup.py.
PYPROJECT = """
[build-system]
requires = ["flit_core>=3.9"]
build-backend = "backend"
backend-path = ["."]
[project]
name = "tiny"
version = "1.0"
description = "Tiny"
[tool.flit.sdist]
include = ["backend.py"]
"""
BACKEND = """
from flit_core.buildapi import *

def get_requires_for_build_wheel(config_settings=None):
    return ["six==1.17.0"]
"""


def write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def run(*argv: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(each) for each in argv], cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}
    )


def assemble(project: Path, deps: Path | None = None) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, ASSEMBLE, "--deps", deps or project / "nowhere", cwd=project)


def files_of(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- assemble.py -------------------------------------------------------------------------------------------------


def test_project_files_win_over_those_of_dependencies(tmp_path: Path) -> None:
    project, deps = tmp_path / "app", tmp_path / "deps"
    write(project, {"main.py": "import six", "six.py": "mine", "data/a.txt": "a", "thing": "a file", ".env": "A=1"})
    write(project, {"pkg/mod.py": "x = 1"})
    write(deps, {"six.py": "theirs", "lib/__init__.py": "", "thing/__init__.py": "", "pkg": "a file", "bin/tool": "t"})

    done = assemble(project, deps)

    assert done.returncode == 0, done.stderr
    assert files_of(project / "dist") == {
        ".env": "A=1",
        "bin/tool": "t",
        "data/a.txt": "a",
        "lib/__init__.py": "",
        "main.py": "import six",
        "pkg/mod.py": "x = 1",
        "six.py": "mine",
        "thing": "a file",
    }
    assert "6 files of the project and 5 of its dependencies" in done.stdout


def test_an_assembled_project_runs(tmp_path: Path) -> None:
    project, deps = tmp_path / "app", tmp_path / "deps"
    write(project, {"main.py": "from texts.title import TITLE\nimport shout\nprint(shout.loud(TITLE))\n"})
    write(project, {"texts/__init__.py": "", "texts/title.py": "TITLE = 'it runs'\n"})
    write(deps, {"shout.py": "def loud(text):\n    return text.upper()\n"})

    assemble(project, deps)

    assert (
        run(sys.executable, "-I", project / "dist" / "main.py", cwd=tmp_path).stdout == ""
    )  # -I leaves out the script's own folder
    assert run(sys.executable, "main.py", cwd=project / "dist").stdout == "IT RUNS\n"


def test_caches_environments_and_old_output_are_left_out(tmp_path: Path) -> None:
    write(
        tmp_path, {"a.py": "", "__pycache__/a.cpython-311.pyc": b"\0", "pkg/__pycache__/b.pyc": b"\0", "old.pyc": b"\0"}
    )
    write(
        tmp_path, {".git/config": "", ".venv/lib/x.py": "def (", "node_modules/x/x.py": "def (", "dist/stale.py": "("}
    )

    done = assemble(tmp_path)

    assert done.returncode == 0, done.stderr
    assert list(files_of(tmp_path / "dist")) == ["a.py"]


def test_a_nested_folder_named_dist_is_kept(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "", "pkg/dist/b.py": ""})

    assemble(tmp_path)

    assert list(files_of(tmp_path / "dist")) == ["a.py", "pkg/dist/b.py"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    project, deps = tmp_path / "app", tmp_path / "deps"
    write(project, {"a.py": ""})
    write(deps, {"real.py": ""})
    (deps / "passwd").symlink_to("/etc/passwd")
    (deps / "etc").symlink_to("/etc")

    assemble(project, deps)

    assert list(files_of(project / "dist")) == ["a.py", "real.py"]


def test_every_file_that_does_not_compile_is_reported_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, {"fine.py": "x = 1\n", "app.py": "def f(:\n    pass\n", "lib/b.py": "x = 1\n\treturn\n"})
    write(tmp_path, {"nul.py": b"x = 1\0", "latin.py": b"x = 'caf\xe9'\n", "deep.py": "(" * 5_000})

    done = assemble(tmp_path)

    assert done.returncode == 1
    assert 'File "app.py", line 1\n    def f(:\n' in done.stderr
    assert 'File "lib/b.py", line 2\n' in done.stderr
    assert all(f'File "{name}.py", line' in done.stderr for name in ("nul", "latin", "deep"))
    assert "fine.py" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "dist").exists()


def test_a_source_with_a_declared_encoding_compiles(tmp_path: Path) -> None:
    write(tmp_path, {"latin.py": b"# -*- coding: latin-1 -*-\nx = 'caf\xe9'\n", "bom.py": b"\xef\xbb\xbfx = 1\n"})
    write(tmp_path, {"loud.py": "x = '\\d'\nassert (x, 'always true')\n"})

    done = assemble(tmp_path)

    assert (done.returncode, done.stderr) == (0, "")


# --- python_requires.py ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment after `pip install build`, with packages in a separate folder."""
    folder = str(tmp_path_factory.mktemp("tools"))
    environment = {"PIP_TARGET": folder, "PYTHONPATH": folder, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "build"]
    subprocess.run(argv, check=True, env={**os.environ, **environment})
    return environment


@pytest.mark.network
def test_the_build_needs_no_network_after_its_requirements_are_installed(tools: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, {"pyproject.toml": PYPROJECT, "backend.py": BACKEND, "tiny.py": '"""Tiny"""\n'})

    installed = run(sys.executable, REQUIRES, cwd=tmp_path, **tools)
    built = run(sys.executable, "-m", "build", "--no-isolation", cwd=tmp_path, **tools, PIP_NO_INDEX="1")

    assert installed.returncode == 0, installed.stderr
    assert "Installing the build requirements: flit_core>=3.9\n" in installed.stdout
    assert "Installing the build requirements: six==1.17.0\n" in installed.stdout
    assert built.returncode == 0, built.stderr
    assert {path.name for path in (tmp_path / "dist").iterdir()} == {"tiny-1.0-py2.py3-none-any.whl", "tiny-1.0.tar.gz"}
    assert "tiny.py" in zipfile.ZipFile(tmp_path / "dist" / "tiny-1.0-py2.py3-none-any.whl").namelist()


@pytest.mark.network
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'nope.backend'\n"},
            "ERROR: Backend 'nope.backend' is not available.",
        ),
        ({"pyproject.toml": "[build-system]\nrequires = 'x'\n"}, "ERROR: "),
        ({"pyproject.toml": "[build-system\n"}, "ERROR: "),
        (
            {
                "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'b'\nbackend-path = ['.']\n",
                "b.py": "x = 1\nif x\n",
            },
            "SyntaxError: expected ':'",
        ),
    ],
)
def test_a_broken_package_fails_with_a_reason(
    tools: dict[str, str], tmp_path: Path, files: dict[str, str], expected: str
) -> None:
    write(tmp_path, files)

    done = run(sys.executable, REQUIRES, cwd=tmp_path, **tools)

    assert done.returncode == 1
    assert expected in done.stdout + done.stderr


@pytest.mark.network
def test_a_failing_requirement_shows_pip_s_output(tools: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, {"pyproject.toml": "[build-system]\nrequires = ['six==99']\n"})

    done = run(sys.executable, REQUIRES, cwd=tmp_path, **tools, PIP_NO_INDEX="1")

    assert done.returncode == 1
    assert "No matching distribution found for six==99" in done.stdout + done.stderr
