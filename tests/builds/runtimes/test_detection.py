"""Plans from a project's files and the strategy request. Pure: nothing is installed or built here."""

import json
import time

import pytest

from tests.builds.runtimes.planning import built, manifest, plan_of, refused

pytestmark = pytest.mark.once

# --- Which runtime -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "dependencies", "runtime"),
    [
        ({"package.json": built()}, {}, "node"),
        ({"package.json": built(), "requirements.txt": "six", "index.html": ""}, {}, "node"),
        ({"package.json": b"\xef\xbb\xbf" + built().encode()}, {}, "node"),
        ({"pyproject.toml": "[project]\nname = 'x'"}, {}, "python"),
        ({"pyproject.toml": "[build-system]\nrequires = []"}, {}, "python"),
        ({"setup.py": "", "index.html": ""}, {}, "python"),
        ({"setup.cfg": "[metadata]\nname = x"}, {}, "python"),
        ({"requirements.txt": "six"}, {}, "python"),
        ({"Pipfile": "[packages]\nsix = '*'"}, {}, "python"),
        ({"app.py": ""}, {}, "python"),
        ({"src/app.py": ""}, {}, "python"),
        ({"app.py": ""}, {"flask": "3"}, "python"),
        ({"src/App.jsx": ""}, {"react": "18"}, "node"),
        ({"src/App.jsx": "", "tools/x.py": ""}, {"react": "18"}, "node"),
        ({}, {"react": "18"}, "node"),
        ({"index.html": ""}, {}, "static"),
        ({"index.html": "", "helper.py": ""}, {}, "static"),
        ({"pyproject.toml": "[tool.ruff]\nline-length = 100", "index.html": ""}, {}, "static"),
        ({"a.html": "", "css/a.css": "", "img/a.PNG": b"\x89", "README.md": "", ".gitignore": ""}, {}, "static"),
        ({"public/index.html": ""}, {}, "static"),
    ],
)
def test_the_runtime_follows_from_the_files(
    files: dict[str, str | bytes], dependencies: dict[str, str], runtime: str
) -> None:
    plan = plan_of(files, dependencies=dependencies)

    assert plan.runtime == runtime
    assert all(reason.endswith((".", "vite build")) for reason in plan.reasons)


@pytest.mark.parametrize("files", [{}, {"README.md": ""}, {"hello.cob": ""}, {"main.rs": "", "style.css": ""}])
def test_unrecognised_files_are_refused_with_a_suggestion(files: dict[str, str | bytes]) -> None:
    error = refused(files)

    assert error.code == "no_runtime_detected"
    assert error.verdict.phase == "preparation"
    assert "package.json" in error.hint
    assert all(name in error.evidence[0] for name in files)


def test_the_strategy_s_runtime_takes_precedence_over_the_files() -> None:
    plan = plan_of({"package.json": built(), "index.html": ""}, runtime="static")

    assert (plan.runtime, plan.build_command, plan.outputs) == ("static", None, (".",))


def test_an_unknown_runtime_is_refused_with_the_available_ones() -> None:
    assert "node, bun, python, static" in refused({"a.rb": ""}, runtime="ruby").message


# --- Which folder ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "root"),
    [
        ({"repo-main/package.json": built(), "README.md": ""}, "repo-main"),
        ({"x-1.0/pyproject.toml": "[project]\nname='x'", "x-1.0/src/x.py": "", "__MACOSX/x": ""}, "x-1.0"),
        ({"site/index.html": "", "site/css/a.css": ""}, "site"),
        ({"index.html": "", "app/package.json": built()}, ""),
        ({"dist/index.html": ""}, ""),
        ({"src/app.py": "", "lib/b.py": ""}, ""),
    ],
)
def test_a_single_folder_with_the_manifest_is_the_project(files: dict[str, str | bytes], root: str) -> None:
    plan = plan_of(files)

    assert plan.root_dir == root
    assert plan.reasons[0].startswith(f"The project is in {root}/") is bool(root)


def test_several_projects_side_by_side_are_refused_until_one_is_named() -> None:
    files: dict[str, str | bytes] = {"web/package.json": built(), "api/requirements.txt": "six"}

    error = refused(files)

    assert (error.code, error.evidence) == (
        "no_runtime_detected",
        ("api/ looks like a project of its own", "web/ looks like a project of its own"),
    )
    assert "rootDir" in error.hint
    assert plan_of(files, root_dir="api").runtime == "python"
    assert plan_of(files, runtime="node").root_dir == "web"


@pytest.mark.parametrize("root", ["", "."])
def test_requesting_the_top_level_keeps_it(root: str) -> None:
    assert plan_of({"site/index.html": ""}, root_dir=root).root_dir == ""


def test_a_root_folder_without_files_is_refused() -> None:
    assert "strategy.rootDir nope" in refused({"index.html": ""}, root_dir="nope").message


def test_a_manifest_in_a_folder_is_named_by_its_full_path() -> None:
    assert refused({"app/package.json": "{"}, root_dir="app/").evidence[0].startswith("app/package.json:1:2: ")


# --- Invalid manifests -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "evidence"),
    [
        ("package.json", '{\n  "name": "x",\n  "scripts": {,}\n}\n', "package.json:3:15: "),
        ("package.json", "", "package.json:1:1: "),
        ("package.json", "[]", "package.json: it must be a JSON object"),
        ("package.json", '{"scripts": ["build"]}', "package.json: `scripts` must be an object"),
        ("package.json", '{"scripts": {"build": 1}}', "package.json: `scripts.build` must be a string"),
        ("package.json", '{"dependencies": {"x": null}}', "package.json: `dependencies.x` must be a string"),
        ("package.json", b"\xff\xfe{}", "package.json: byte 0 is not UTF-8"),
        ("package.json", "[" * 200_000, "package.json: it is not valid JSON"),
        ("package.json", "1" * 5_000, "package.json: it is not valid JSON"),
        ("pyproject.toml", '[project]\nname = "x\n', "pyproject.toml:2:10: "),
        ("pyproject.toml", "[project\n", "pyproject.toml:1:"),
        ("pyproject.toml", 'a = "x', "pyproject.toml:1:1: "),
        ("pyproject.toml", "a = " + "[" * 200_000, "pyproject.toml: it is not valid TOML"),
        ("pyproject.toml", "[project]\nrequires-python = 'three'", "pyproject.toml: requires-python 'three'"),
        (
            "pyproject.toml",
            f"[project]\nrequires-python = '{'>=3,' * 99_999}>3'",
            "pyproject.toml: requires-python '>=3",
        ),
    ],
)
def test_a_broken_manifest_is_refused_with_its_location(name: str, content: str | bytes, evidence: str) -> None:
    error = refused({name: content})

    assert error.code == "invalid_manifest"
    assert error.evidence[0].startswith(evidence)
    assert error.message.startswith(f"{name} is invalid: ")


# --- Static sites ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "outputs"),
    [
        ({"index.html": "", "public/index.html": ""}, (".",)),
        ({"public/index.html": "", "notes.md": ""}, ("public",)),
        ({"dist/index.html": "", "dist/app.js": ""}, ("dist",)),
        ({"page.html": ""}, (".",)),
    ],
)
def test_a_site_s_output_is_the_folder_of_its_page(files: dict[str, str | bytes], outputs: tuple[str, ...]) -> None:
    plan = plan_of(files)

    assert (plan.install_command, plan.build_command, plan.outputs) == (None, None, outputs)


def test_hidden_files_are_left_out_except_well_known() -> None:
    plan = plan_of({"index.html": "", ".env": "", ".git/config": "", ".well-known/security.txt": ""})

    assert plan.exclude == (".env", ".git")


# --- The plan itself ---------------------------------------------------------------------------------------------


def test_a_plan_serializes_with_the_api_s_field_names() -> None:
    plan = plan_of({"package.json": built()})

    document = json.loads(json.dumps(plan.as_json()))

    assert (document["runtime"], document["packageManager"], document["buildCommand"]) == (
        "node",
        "npm",
        "npm run build",
    )
    assert (document["outputs"][0], document["rootDir"]) == ("dist", "")


def test_a_plan_contains_no_characters_that_a_database_refuses() -> None:
    fields = {"scripts": {"build": "a\0\ud800\x1b[31m"}, "dependencies": {"\ud800\0": "\0"}}

    plan = plan_of({"package.json": json.dumps(fields), ".nvmrc": "22"}, dependencies={"x": "1"})

    text = json.dumps(plan.as_json(), ensure_ascii=False)
    assert text.encode()
    assert "\\u0000" not in text.replace("\\\\u0000", "")


@pytest.mark.parametrize(
    "files",
    [
        {"package.json": built(), "vite.config.js": "\n" * 1_000_000},
        {"package.json": built(), "vite.config.js": "outDir: " * 120_000},
        {"package.json": built(), "yarn.lock": "__metadata:" + "\n" * 1_000_000},
        {"package.json": manifest(scripts={"build": "-o " * 300_000})},
        {"package.json": built(engines={"node": "||" * 128})},
        {".nvmrc": "#" * 1_000_000, "package.json": built()},
        {f"folder{number}/file{number}.css": "" for number in range(1_000)},
    ],
    ids=lambda files: next(reversed(files)),
)
def test_no_file_takes_long(files: dict[str, str | bytes]) -> None:
    started = time.process_time()

    plan_of(files)

    assert time.process_time() - started < 3


def test_many_lines_of_import_take_no_time() -> None:
    started = time.process_time()

    plan_of({"a.js": "import" + "\n" * 500_000 + " \n" * 250_000}, dependencies={"x": "1"})

    assert time.process_time() - started < 3
