"""Plans for Python projects: packages, and folders of sources with their requirements."""

import pytest

from tests.builds.runtimes.planning import ASSEMBLE, plan_of, refused

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    "files",
    [
        {"pyproject.toml": "[project]\nname = 'x'"},
        {"pyproject.toml": "[build-system]\nrequires = ['hatchling']"},
        {"setup.py": "", "requirements.txt": "six"},
        {"setup.cfg": "[metadata]\nname = x\n"},
    ],
)
def test_a_package_is_built_without_the_network(files: dict[str, str | bytes]) -> None:
    plan = plan_of(files)

    assert plan.install_command == "python -m pip install build && python /workspace/.chef/python_requires.py"
    assert plan.build_command == "python -m build --no-isolation"
    assert (plan.package_manager, plan.outputs) == ("pip", ("dist",))


@pytest.mark.parametrize(
    ("files", "generated"),
    [
        ({"requirements.txt": "six==1.16.0\n", "app.py": ""}, None),
        ({"requirements.txt": "six\n", "pyproject.toml": "[tool.ruff]\n", "setup.cfg": "[flake8]\n"}, None),
        (
            {"Pipfile": "[packages]\nsix = '*'\nflask = {version = '==3.0', extras = ['async']}\n"},
            "six\nflask[async]==3.0\n",
        ),
        (
            {
                "Pipfile": "",
                "Pipfile.lock": '{"default": {"six": {"version": "==1.16.0", "markers": "python_version > \'3\'"}}}',
            },
            "six==1.16.0; python_version > '3'\n",
        ),
    ],
)
def test_sources_with_requirements_are_bundled_with_their_dependencies(
    files: dict[str, str | bytes], generated: str | None
) -> None:
    plan = plan_of(files)

    assert plan.install_command == (
        "PIP_USER=0 python -m pip install --target /workspace/tools/deps -r requirements.txt"
    )
    assert (plan.build_command, plan.outputs) == (ASSEMBLE, ("dist",))
    assert plan.generated.get("requirements.txt") == generated


def test_sources_without_requirements_are_checked_and_copied() -> None:
    plan = plan_of({"app.py": ""})

    assert (plan.install_command, plan.build_command) == (None, ASSEMBLE)


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("2.31.0", "x==2.31.0"),
        (">=2,<3", "x<3,>=2"),
        ("~=2.1", "x~=2.1"),
        ("^2.31", "x<3,>=2.31"),
        ("*", "x"),
        ("latest", "x"),
        ("", "x"),
    ],
)
def test_the_request_s_dependencies_become_requirements(version: str, line: str) -> None:
    plan = plan_of({"app.py": "", "requirements.txt": "Six_=1\nflask"}, dependencies={"x": version, "FLASK": "1"})

    assert plan.generated["requirements.txt"] == f"Six_=1\nflask\n{line}\n"


@pytest.mark.parametrize("version", ["^", "^x", "git+https://x", "1; os", "--index-url"])
def test_an_invalid_requirement_is_refused(version: str) -> None:
    error = refused({"app.py": ""}, dependencies={"x": version})

    assert error.code == "invalid_manifest"
    assert repr(version) in error.message


@pytest.mark.parametrize(
    "files",
    [
        {".python-version": "3.11.4\n"},
        {"runtime.txt": "python-3.11.6"},
        {"pyproject.toml": "[project]\nrequires-python = '>=3.9,<3.12'"},
        {"pyproject.toml": "[project]\nrequires-python = '==3.11.2'"},
        {"pyproject.toml": "[project]\nrequires-python = 3"},
    ],
)
def test_an_available_python_version_is_used(files: dict[str, str | bytes]) -> None:
    assert plan_of({"app.py": "", **files}).version == "3.11"


@pytest.mark.parametrize(
    ("files", "asked", "evidence"),
    [
        ({".python-version": "3.12"}, None, ".python-version: 3.12"),
        ({"runtime.txt": "python-3.8.1"}, None, "runtime.txt: 3.8.1"),
        (
            {"pyproject.toml": "[project]\nrequires-python = '>=3.12'"},
            None,
            "requires-python in pyproject.toml: >=3.12",
        ),
        ({}, "3.10", "strategy.version: 3.10"),
    ],
)
def test_an_unavailable_python_version_is_refused(
    files: dict[str, str | bytes], asked: str | None, evidence: str
) -> None:
    error = refused({"app.py": "", **files}, version=asked)

    assert (error.code, error.evidence) == ("unsupported_runtime_version", (evidence,))
    assert "3.11" in error.hint
