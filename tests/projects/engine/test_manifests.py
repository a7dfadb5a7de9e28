import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement

from projects.engine.stages.dependencies import Dependency, dependency_faults, imported
from projects.engine.stages.manifests import manifest, slug
from projects.engine.stages.plan import Plan
from projects.engine.stages.tests import Suite
from tests.projects.engine.apps import as_json, plan, planned

pytestmark = pytest.mark.once("postgresql")


def dependency(name: str, range: str = "*", *, development: bool = False) -> Dependency:
    return Dependency(name=name, range=range, development=development)


def made(files: dict[str, str] | None = None, suite: Suite | None = None, **changes: Any) -> dict[str, str]:
    return manifest(Plan.model_validate(plan(planned("a"), **changes)), suite, files or {})


PYTHON: dict[str, Any] = {"runtime": "python", "scripts": []}


@pytest.mark.parametrize(
    ("runtime", "name", "wanted"),
    [
        ("node", "react", "^18.2.0"),
        ("node", "@vitejs/plugin-react", "4.x || ~5.1"),
        ("node", "lodash.merge", ""),
        ("python", "Flask", ">=3.0,<4"),
        ("python", "uvicorn[standard]", "~=0.30"),
        ("python", "ruamel.yaml", "*"),
    ],
)
def test_valid_names_and_ranges_are_accepted(runtime: Any, name: str, wanted: str) -> None:
    assert dependency_faults(runtime, [dependency(name, wanted)]) == []


@pytest.mark.parametrize(
    ("runtime", "name", "wanted"),
    [
        ("node", "React", "^18"),
        ("node", "../react", "^18"),
        ("node", "react", "latest"),
        ("node", "react", "npm:evil@1"),
        ("node", "react", "file:../x"),
        ("node", "react", "github:a/b"),
        ("node", "react", "^18\n"),
        ("node", "r" * 215, "*"),
        ("python", "flask; import os", "*"),
        ("python", "-r", "*"),
        ("python", "flask @ https://host/x", "*"),
        ("python", "flask", "^3.0"),
        ("python", "flask", "@ https://host/x"),
        ("python", "flask", ">=1\n--index-url x"),
        ("static", "react", "*"),
    ],
)
def test_invalid_names_and_ranges_are_reported(runtime: Any, name: str, wanted: str) -> None:
    assert len(dependency_faults(runtime, [dependency(name, wanted)])) == 1


def test_a_package_in_two_spellings_is_a_duplicate() -> None:
    twice = [dependency("Flask-Cors"), dependency("flask_cors")]

    assert "listed twice" in dependency_faults("python", twice)[0]


def test_javascript_imports_are_found() -> None:
    files = {
        "src/a.jsx": "import React, {\n  useState,\n} from 'react'\nimport '@fontsource/inter/400.css'\n"
        "export * from \"zustand/middleware\"\nconst x = await import('dayjs')\n",
        "b.cjs": "const fs = require('fs')\nconst { app } = require('express')\n// require('commented')\n",
        "c.ts": "import a from './a'\nimport b from '@/b'\nimport c from 'node:fs'\nimport d from 'components/d'\n",
        "src/components/d.ts": "",
        "vite.config.js": "import vue from '@vitejs/plugin-vue'\n",
        "tests/a.test.js": "import { test } from 'vitest'\nimport 'react'\n",
        "notes.md": "import nothing from 'nothing'",
    }

    found = {each.name: each.development for each in imported("node", files)}

    assert found == {
        "react": False,
        "@fontsource/inter": False,
        "zustand": False,
        "dayjs": False,
        "express": False,
        "@vitejs/plugin-vue": True,
        "vitest": True,
    }


@pytest.mark.parametrize(
    "text",
    [
        'export const theme = "dark"\n',
        'export function count(from: number): number {\n  let counter: number = "zero"\n}\n',
        'export default defineConfig({ mode: "production" })\n',
        'export enum Size { Small = "small" }\n',
        'export { from }\nconst size = "small"\n',
        'if (\n  import.meta.env.MODE === "production"\n) {}\nimport.meta.env.MODE === "production"\n',
        'import site from "./site.json" with { type: "json" }\n',
    ],
)
def test_strings_in_exports_are_not_imports(text: str) -> None:
    assert imported("node", {"src/a.ts": text}) == []


def test_python_imports_with_known_packages_are_found() -> None:
    files = {
        "app.py": "import os, yaml\nfrom PIL import Image\nimport helpers\nfrom . import x\nimport who_knows\n"
        "try:\n    import numpy\nexcept ImportError:\n    numpy = None\n",
        "helpers.py": '"""\nimport requests\n"""\n',
        "tests/test_app.py": "import pytest\nimport app\n",
        "broken.py": "import flask\ndef :\n",
    }

    found = {each.name: each.development for each in imported("python", files)}

    assert found == {"pyyaml": False, "pillow": False, "pytest": True}


def test_packages_that_run_the_app_are_not_development_dependencies() -> None:
    suite = Suite(files=[], dependencies=[dependency("react", "^17", development=True)], command="vitest run")
    document = as_json(
        made(
            {"src/a.js": "import 'vite'\n"},
            suite,
            dependencies=[
                {"name": "react", "range": "^18.2.0", "development": False},
                {"name": "vite", "range": "^5", "development": True},
            ],
            commonjs=True,
        )["package.json"].encode()
    )

    assert document["dependencies"] == {"react": "^18.2.0", "vite": "^5"}
    assert "devDependencies" not in document
    assert document["type"] == "commonjs"
    assert document["scripts"]["test"] == "vitest run"


def test_a_python_program_has_requirements() -> None:
    wanted = [
        {"name": "Flask", "range": ">=3,<4", "development": False},
        {"name": "pytest", "range": "*", "development": True},
    ]

    files = made({"app.py": "import yaml, flask\n"}, **PYTHON, dependencies=wanted)

    assert files == {
        "requirements.txt": "Flask>=3,<4\npyyaml\n",
        "requirements-dev.txt": "-r requirements.txt\npytest\n",
    }


def test_a_python_package_has_a_pyproject() -> None:
    wanted = [
        {"name": "rich", "range": ">=13", "development": False},
        {"name": "pytest", "range": "", "development": True},
    ]
    changes: dict[str, Any] = {
        **PYTHON,
        "scripts": [{"name": "todo", "command": "todo.main:run"}, {"name": "x", "command": "rm -rf"}],
    }

    text = made(dependencies=wanted, package=True, description='Say "hi"\nto \x07 \U0001f600', **changes)[
        "pyproject.toml"
    ]

    project = tomllib.loads(text)["project"]
    assert [str(Requirement(each)) for each in project["dependencies"]] == ["rich>=13"]
    assert project["optional-dependencies"] == {"dev": ["pytest"]}
    assert project["scripts"] == {"todo": "todo.main:run"}
    assert project["name"] == "todo-liste"
    assert project["description"].startswith('Say "hi" to')


@pytest.mark.parametrize(("name", "plain"), [("Größe & Café", "groe-cafe"), ("../..", "app"), ("A" * 99, "a" * 60)])
def test_every_name_becomes_a_valid_package_name(name: str, plain: str) -> None:
    assert slug(name) == plain
