"""From a project's files and the user's wish to a plan. Pure: nothing is installed or built here."""

import json
import time
from typing import Any

import pytest

from builds.detection import DetectionError, Plan, Wish, detect
from builds.runtimes import RUNTIMES, UnknownRuntime, find_runtime, resolve_version, runtime_tag

TOOLS = "npm install --no-audit --no-fund --loglevel=error --prefix /workspace/tools"
NPM_CI = "npm ci --no-audit --no-fund"
NPM_INSTALL = "npm install --no-audit --no-fund"
ASSEMBLE = "python /workspace/.chef/assemble.py"


def plan_of(files: dict[str, str | bytes], *, dependencies: dict[str, str] | None = None, **wish: Any) -> Plan:
    contents = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
    return detect(contents, dependencies=dependencies or {}, wish=Wish(**wish))


def refused(files: dict[str, str | bytes], **options: Any) -> DetectionError:
    with pytest.raises(DetectionError) as caught:
        plan_of(files, **options)
    return caught.value


def manifest(**fields: Any) -> str:
    return json.dumps({"name": "x", "version": "1.0.0", **fields})


def built(**fields: Any) -> str:
    """A package.json that has a build script and a dependency."""
    return manifest(**{"scripts": {"build": "vite build"}, "dependencies": {"vite": "^6"}, **fields})


# --- Runtimes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runtime", "wish", "version"),
    [
        ("node", None, "22"),
        ("node", "", "22"),
        ("node", "18", "18"),
        ("node", "v20.11.1", "20"),
        ("node", "24.x", "24"),
        ("python", None, "3.11"),
        ("python", "3.11.4", "3.11"),
        ("static", None, "12"),
    ],
)
def test_a_wish_means_the_release_line_that_it_belongs_to(runtime: str, wish: str | None, version: str) -> None:
    assert resolve_version(runtime, wish) == version


@pytest.mark.parametrize(
    ("runtime", "wish", "code", "told"),
    [
        ("ruby", None, "unknown_runtime", "node, python, static"),
        ("node", "16", "unknown_version", "18, 20, 22, 24"),
        ("node", "180", "unknown_version", "18, 20, 22, 24"),
        ("node", "22; rm", "unknown_version", "18, 20, 22, 24"),
        ("node", "22.; rm", "unknown_version", "18, 20, 22, 24"),
        ("python", "3", "unknown_version", "3.11"),
        ("python", "3.1", "unknown_version", "3.11"),
    ],
)
def test_an_unknown_wish_is_refused_with_what_there_is(runtime: str, wish: str | None, code: str, told: str) -> None:
    with pytest.raises(UnknownRuntime) as caught:
        resolve_version(runtime, wish)

    assert caught.value.code == code
    assert told in str(caught.value)


def test_an_image_s_tag_names_runtime_and_version() -> None:
    assert runtime_tag("node", "22") == "chef-runtime/node:22"
    assert find_runtime("python").image("3.11") == "python:3.11-slim-bookworm"


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_default_version_is_one_of_the_versions(name: str) -> None:
    assert RUNTIMES[name].default_version in RUNTIMES[name].versions


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
def test_files_that_say_nothing_are_refused_with_what_to_add(files: dict[str, str | bytes]) -> None:
    error = refused(files)

    assert error.code == "no_runtime_detected"
    assert error.verdict.phase == "preparation"
    assert "package.json" in error.hint
    assert all(name in error.evidence[0] for name in files)


def test_a_wished_runtime_outweighs_the_files() -> None:
    plan = plan_of({"package.json": built(), "index.html": ""}, runtime="static")

    assert (plan.runtime, plan.build_command, plan.outputs) == ("static", None, (".",))


def test_a_runtime_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert "node, python, static" in refused({"a.rb": ""}, runtime="ruby").message


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
def test_a_wish_for_the_top_keeps_it(root: str) -> None:
    assert plan_of({"site/index.html": ""}, root_dir=root).root_dir == ""


def test_a_wished_folder_without_files_is_refused() -> None:
    assert "strategy.rootDir nope" in refused({"index.html": ""}, root_dir="nope").message


def test_a_manifest_in_a_folder_is_named_by_its_whole_path() -> None:
    assert refused({"app/package.json": "{"}, root_dir="app/").evidence[0].startswith("app/package.json:1:2: ")


# --- Node: version -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "wish", "version"),
    [
        ({}, None, "22"),
        ({".nvmrc": "v18"}, "20.11.1", "20"),
        ({".nvmrc": "v20\n"}, None, "20"),
        ({".nvmrc": "# pinned\n20.11.1\r\n"}, None, "20"),
        ({".nvmrc": "lts/*"}, None, "24"),
        ({".nvmrc": "lts/Iron"}, None, "20"),
        ({".nvmrc": "hydrogen"}, None, "18"),
        ({".nvmrc": "node"}, None, "24"),
        ({".nvmrc": "\n"}, None, "22"),
        ({".node-version": "18.19.0"}, None, "18"),
    ],
)
def test_the_node_version_is_the_one_that_is_pinned(files: dict[str, str], wish: str | None, version: str) -> None:
    plan = plan_of({"package.json": built(engines={"node": ">=18"}), **files}, version=wish)

    assert plan.version == version


@pytest.mark.parametrize(
    ("wanted", "version"),
    [
        (">=18", "22"),
        ("*", "22"),
        ("", "22"),
        ("^20.19.0 || >=22.12.0", "22"),
        ("18 || 20", "20"),
        (">=18 <21", "20"),
        (">22", "24"),
        ("20.x", "20"),
        ("~20.11.1", "20"),
        ("20.11.1", "20"),
        (">=20.0.0 <20.15.0", "20"),
        ("^18.0.0", "18"),
        ("14 - 20", "20"),
        ("lts", "22"),
        ("node >= 18", "22"),
        ("9" * 5000, "22"),
    ],
)
def test_an_engines_range_prefers_the_default_and_then_the_newest(wanted: str, version: str) -> None:
    assert plan_of({"package.json": built(engines={"node": wanted})}).version == version


@pytest.mark.parametrize("engines", [["node >= 18"], {"node": 18}, "node", None])
def test_engines_that_npm_ignores_are_ignored(engines: object) -> None:
    assert plan_of({"package.json": built(engines=engines, volta={"node": "20.1.0"})}).version == "20"


@pytest.mark.parametrize(
    ("files", "wish", "evidence"),
    [
        ({"package.json": built(engines={"node": "^16"})}, None, "engines.node in package.json: ^16"),
        ({"package.json": built(), ".nvmrc": "lts/gallium"}, None, ".nvmrc: 16"),
        ({"package.json": built(), ".nvmrc": "$(whoami)"}, None, ".nvmrc: $(whoami)"),
        ({"package.json": built(volta={"node": "16.0.0"})}, None, "volta.node in package.json: 16.0.0"),
        ({"package.json": built()}, "23", "strategy.version: 23"),
    ],
)
def test_a_node_that_is_not_there_is_refused_with_those_that_are(
    files: dict[str, str | bytes], wish: str | None, evidence: str
) -> None:
    error = refused(files, version=wish)

    assert (error.code, error.evidence) == ("unsupported_runtime_version", (evidence,))
    assert "18, 20, 22, 24" in error.hint


# --- Node: package manager ---------------------------------------------------------------------------------------

BERRY_LOCK = "__metadata:\n  version: {}\n  cacheKey: 10c0\n"


@pytest.mark.parametrize(
    ("files", "fields", "install", "build"),
    [
        ({}, {}, NPM_INSTALL, "npm run build"),
        ({"package-lock.json": "{}"}, {}, NPM_CI, "npm run build"),
        ({"npm-shrinkwrap.json": "{}"}, {}, NPM_CI, "npm run build"),
        ({"package-lock.json": "{}"}, {"packageManager": "npm@10.2.0"}, NPM_CI, "npm run build"),
        ({"bun.lock": ""}, {}, NPM_INSTALL, "npm run build"),
        (
            {"pnpm-lock.yaml": "lockfileVersion: 5.4\n"},
            {},
            f"{TOOLS} pnpm@7 && pnpm install --frozen-lockfile",
            "pnpm run build",
        ),
        (
            {"pnpm-lock.yaml": "lockfileVersion: '6.0'\n"},
            {},
            f"{TOOLS} pnpm@8 && pnpm install --frozen-lockfile",
            "pnpm run build",
        ),
        (
            {"pnpm-lock.yaml": "lockfileVersion: '9.0'\r\n"},
            {},
            f"{TOOLS} pnpm@9 && pnpm install --frozen-lockfile",
            "pnpm run build",
        ),
        (
            {"pnpm-lock.yaml": "lockfileVersion: '9.0'\n"},
            {"packageManager": "pnpm@10.1.0+sha512.abc"},
            f"{TOOLS} pnpm@10.1.0 && pnpm install --frozen-lockfile",
            "pnpm run build",
        ),
        (
            {"package-lock.json": "{}"},
            {"packageManager": "pnpm@9.15.9"},
            f"{TOOLS} pnpm@9.15.9 && pnpm install --no-frozen-lockfile",
            "pnpm run build",
        ),
        (
            {"yarn.lock": "# yarn lockfile v1\n"},
            {},
            f"{TOOLS} yarn@1 && yarn install --frozen-lockfile",
            "yarn run build",
        ),
        ({}, {"packageManager": "yarn@1.22.22"}, f"{TOOLS} yarn@1.22.22 && yarn install", "yarn run build"),
        (
            {"yarn.lock": BERRY_LOCK.format(8)},
            {"packageManager": "yarn@4.5.0+sha224.0a"},
            f"{TOOLS} @yarnpkg/cli-dist@4.5.0 && yarn install --immutable",
            "yarn run build",
        ),
        (
            {"yarn.lock": BERRY_LOCK.format(6)},
            {},
            f"{TOOLS} '@yarnpkg/cli-dist@^3.2.0' && yarn install --immutable",
            "yarn run build",
        ),
        (
            {"yarn.lock": BERRY_LOCK.format(8)},
            {},
            f"{TOOLS} '@yarnpkg/cli-dist@>=4.0.0 <4.14.0' && yarn install --immutable",
            "yarn run build",
        ),
        (
            {"yarn.lock": BERRY_LOCK.format(99)},
            {},
            f"{TOOLS} @yarnpkg/cli-dist@4 && yarn install --immutable",
            "yarn run build",
        ),
        (
            {"yarn.lock": BERRY_LOCK.format(8), ".yarnrc.yml": "yarnPath: .yarn/releases/yarn-4.1.0.cjs\n"},
            {},
            f"{TOOLS} @yarnpkg/cli-dist@4.1.0 && yarn install --immutable",
            "yarn run build",
        ),
        (
            {},
            {"packageManager": "yarn@4.18.1"},
            f"{TOOLS} @yarnpkg/cli-dist@4.18.1 && yarn install --no-immutable",
            "yarn run build",
        ),
        ({}, {"packageManager": "pnpm@9; rm -rf ."}, NPM_INSTALL, "npm run build"),
        ({}, {"packageManager": ["pnpm"]}, NPM_INSTALL, "npm run build"),
    ],
)
def test_the_package_manager_is_the_one_that_is_named_or_wrote_the_lockfile(
    files: dict[str, str], fields: dict[str, Any], install: str, build: str
) -> None:
    plan = plan_of({"package.json": built(**fields), **files})

    assert (plan.install_command, plan.build_command) == (install, build)
    assert plan.package_manager == build.split()[0]


def test_nothing_is_installed_without_dependencies_or_a_lockfile() -> None:
    bare = manifest(scripts={"build": "node b.js"})

    assert plan_of({"package.json": bare}).install_command is None
    assert plan_of({"package.json": bare, "package-lock.json": "{}"}).install_command == NPM_CI
    assert plan_of({"package.json": manifest(scripts={"build": "x"}, workspaces=["a"])}).install_command == NPM_INSTALL
    assert plan_of({"package.json": manifest(scripts={"build": "x"}, packageManager="pnpm@9.1.0")}).install_command == (
        f"{TOOLS} pnpm@9.1.0"
    )


# --- Node: the request's dependencies ----------------------------------------------------------------------------


def generated_manifest(plan: Plan) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(plan.generated["package.json"])
    return document


@pytest.mark.parametrize(
    ("files", "dependencies", "script", "kind"),
    [
        ({"index.html": "", "main.js": "import 'x'"}, {"vite": "8"}, "vite build", "module"),
        ({"index.html": "", "postcss.config.js": "module.exports = {}"}, {"vite": "8"}, "vite build", None),
        ({"pages/index.js": "export default 1"}, {"next": "15", "react": "19"}, "next build", None),
        ({"src/index.js": "import App from './App'"}, {"react-scripts": "5"}, "react-scripts build", None),
        ({"src/index.js": ""}, {"webpack": "5"}, "webpack --mode production", None),
        ({"index.html": ""}, {"parcel": "2"}, "parcel build index.html", None),
        ({"src/index.astro": ""}, {"astro": "5", "vite": "6"}, "astro build", "module"),
        ({"rollup.config.mjs": ""}, {"rollup": "4"}, "rollup --config rollup.config.mjs", None),
        ({"esbuild.config.js": "import 'esbuild'"}, {"esbuild": "0.25"}, "node esbuild.config.js", "module"),
        ({"a.ts": "", "tsconfig.json": "{}"}, {"typescript": "5"}, "tsc", None),
        ({"a.ts": ""}, {"typescript": "5"}, None, None),
        ({"src/index.js": ""}, {"esbuild": "0.25"}, None, None),
        ({"server.js": "import express from 'express'"}, {"express": "5"}, None, "module"),
        ({"server.js": "require('express')"}, {"express": "5"}, None, None),
    ],
)
def test_dependencies_without_a_manifest_make_one(
    files: dict[str, str | bytes], dependencies: dict[str, str], script: str | None, kind: str | None
) -> None:
    plan = plan_of(files, dependencies=dependencies)

    document = generated_manifest(plan)
    assert document["dependencies"].items() >= dependencies.items()
    assert (document.get("scripts", {}).get("build"), document.get("type")) == (script, kind)
    assert (plan.install_command, plan.build_command) == (NPM_INSTALL, "npm run build" if script else None)
    assert document["private"] is True
    if not script:
        assert plan.outputs == (".",)
        assert "node_modules" in plan.exclude


def test_webpack_brings_its_command_line() -> None:
    assert "webpack-cli" in generated_manifest(plan_of({"a.js": ""}, dependencies={"webpack": "5"}))["dependencies"]


def test_dependencies_are_merged_into_a_manifest_that_is_there() -> None:
    given = built(devDependencies={"typescript": "5.0.0"})

    plan = plan_of(
        {"package.json": given, "package-lock.json": "{}"},
        dependencies={"typescript": "5.4.0", "react": "18", "vite": "^6"},
    )

    document = generated_manifest(plan)
    assert document["dependencies"] == {"vite": "^6", "react": "18"}
    assert document["devDependencies"] == {"typescript": "5.4.0"}
    assert document["scripts"] == {"build": "vite build"}
    assert plan.install_command == NPM_INSTALL  # the lockfile cannot know of them


def test_dependencies_that_stand_there_already_change_nothing() -> None:
    plan = plan_of({"package.json": built(), "package-lock.json": "{}"}, dependencies={"vite": "^6"})

    assert (plan.generated, plan.install_command) == ({}, NPM_CI)


def test_a_generated_manifest_lies_in_the_project_s_folder() -> None:
    plan = plan_of({"app/package.json": built()}, dependencies={"react": "18"})

    assert (plan.root_dir, list(plan.generated)) == ("app", ["package.json"])


# --- Node: what to build -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["dist", "build", "out", "public"])
def test_finished_files_that_came_along_are_the_output(folder: str) -> None:
    plan = plan_of({"package.json": manifest(), f"{folder}/index.html": ""})

    assert (plan.build_command, plan.outputs, plan.outputs_chosen) == (None, (folder,), False)


def test_nothing_to_build_and_nothing_built_is_a_missing_script() -> None:
    error = refused({"package.json": manifest(scripts={"start": "node ."}), "index.js": ""})

    assert (error.code, error.verdict.phase) == ("missing_script", "build")
    assert error.evidence == ("package.json has these scripts: start",)
    assert "strategy.buildCommand" in error.hint
    assert "strategy.outputs" in error.hint


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({"outputs": ("lib", "types")}, (None, None, ("lib", "types"), True)),
        ({"build_command": "node b.js", "outputs": ("www",)}, (None, "node b.js", ("www",), True)),
        ({"install_command": "npm i x", "build_command": "make"}, ("npm i x", "make", None, False)),
        ({"install_command": "", "build_command": " ", "outputs": (".",)}, (None, None, (".",), True)),
        ({"install_command": "pnpm i", "build_command": "a"}, (f"{TOOLS} pnpm@10 && pnpm i", "a", None, False)),
        ({"build_command": "cd a && yarn build"}, (f"{TOOLS} yarn@1", "cd a && yarn build", None, False)),
        ({"build_command": "echo pnpmx; ./yarn x"}, (None, "echo pnpmx; ./yarn x", None, False)),
    ],
)
def test_what_the_strategy_says_is_what_is_done(wish: dict[str, Any], expected: tuple[Any, ...]) -> None:
    plan = plan_of({"package.json": manifest()}, **wish)

    outputs = plan.outputs if plan.outputs_chosen else None
    assert (plan.install_command, plan.build_command, outputs, plan.outputs_chosen) == expected


def test_node_without_a_manifest_runs_the_wished_command() -> None:
    plan = plan_of({"index.js": ""}, runtime="node", build_command="node index.js")

    assert (plan.install_command, plan.build_command, dict(plan.generated)) == (None, "node index.js", {})


@pytest.mark.parametrize(
    ("dependencies", "script", "files", "first"),
    [
        ({"vite": "6"}, "vite build", {}, "dist"),
        ({"vite": "6"}, "vite build", {"vite.config.ts": "build: { outDir: 'www' }"}, "www"),
        ({"vite": "6"}, "vite build", {"vite.config.js": "  root: 'web',\n  build: { outDir: '../site' }"}, "site"),
        ({"vite": "6"}, "vite build", {"vite.config.js": "outDir: '../../etc'"}, "dist"),
        ({"vite": "6"}, "vite build", {"vite.config.js": "outDir: 'a\0b'"}, "dist"),
        ({"vite": "6"}, "vite build --outDir=docs", {}, "docs"),
        ({"next": "15"}, "next build", {}, "out"),
        ({"astro": "5"}, "astro build", {}, "dist"),
        ({"react-scripts": "5"}, "react-scripts build", {}, "build"),
        ({"nuxt": "3", "vite": "6"}, "nuxt generate", {}, ".output/public"),
        ({"@sveltejs/kit": "2", "vite": "6"}, "vite build", {}, "build"),
        ({"gatsby": "5"}, "gatsby build", {}, "public"),
        ({"@11ty/eleventy": "3"}, "eleventy", {}, "_site"),
        ({"webpack": "5"}, "webpack", {"webpack.config.js": "path: path.resolve(__dirname, 'public')"}, "public"),
        ({"esbuild": "0"}, "esbuild a.js --bundle --outfile=www/app.js", {}, "www"),
        ({"esbuild": "0"}, "esbuild a.js --bundle --outfile=app.js", {}, "dist"),
        ({"typescript": "5"}, "tsc -p .", {"tsconfig.json": '{ /* x */ "outDir": "./lib" }'}, "lib"),
        (
            {"@angular/core": "19"},
            "ng build",
            {"angular.json": '{"projects": {"shop": {"architect": {"build": {}}}}}'},
            "dist/shop/browser",
        ),
        (
            {"@angular/core": "19"},
            "ng build",
            {"angular.json": '{"projects": {"a": {"architect": {"build": {"options": {"outputPath": "site"}}}}}}'},
            "site/browser",
        ),
        ({"@angular/core": "19"}, "ng build", {"angular.json": "[" * 100_000}, "dist"),
        ({"x": "1"}, "make", {}, "dist"),
    ],
)
def test_outputs_are_looked_for_where_the_tool_writes(
    dependencies: dict[str, str], script: str, files: dict[str, str], first: str
) -> None:
    plan = plan_of({"package.json": manifest(scripts={"build": script}, devDependencies=dependencies), **files})

    assert plan.outputs[0] == first
    assert set(plan.outputs) >= {"dist", "build", "out", "public"}
    assert "." not in plan.outputs[:-1]
    assert not plan.outputs_chosen


def test_public_comes_last_when_no_tool_writes_there() -> None:
    assert plan_of({"package.json": built()}).outputs[-1] == "public"


# --- Manifests that cannot be used -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "evidence"),
    [
        ("package.json", '{\n  "name": "x",\n  "scripts": {,}\n}\n', "package.json:3:15: "),
        ("package.json", "", "package.json:1:1: "),
        ("package.json", "[]", "package.json: it must be a JSON object"),
        ("package.json", '{"scripts": ["build"]}', "package.json: `scripts` must be an object"),
        ("package.json", '{"scripts": {"build": 1}}', "package.json: `scripts.build` must be a text"),
        ("package.json", '{"dependencies": {"x": null}}', "package.json: `dependencies.x` must be a text"),
        ("package.json", b"\xff\xfe{}", "package.json: byte 0 is not UTF-8"),
        ("package.json", "[" * 200_000, "package.json: it is not well formed"),
        ("package.json", "1" * 5_000, "package.json: it is not well formed"),
        ("pyproject.toml", '[project]\nname = "x\n', "pyproject.toml:2:10: "),
        ("pyproject.toml", "[project\n", "pyproject.toml:1:"),
        ("pyproject.toml", 'a = "x', "pyproject.toml:1:1: "),
        ("pyproject.toml", "a = " + "[" * 200_000, "pyproject.toml: it is not well formed"),
        ("pyproject.toml", "[project]\nrequires-python = 'three'", "pyproject.toml: requires-python 'three'"),
        (
            "pyproject.toml",
            f"[project]\nrequires-python = '{'>=3,' * 99_999}>3'",
            "pyproject.toml: requires-python '>=3",
        ),
    ],
)
def test_a_broken_manifest_is_refused_with_the_place(name: str, content: str | bytes, evidence: str) -> None:
    error = refused({name: content})

    assert error.code == "invalid_manifest"
    assert error.evidence[0].startswith(evidence)
    assert error.message.startswith(f"{name} cannot be used: ")


# --- Python ------------------------------------------------------------------------------------------------------


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
def test_sources_with_requirements_are_laid_beside_their_dependencies(
    files: dict[str, str | bytes], generated: str | None
) -> None:
    plan = plan_of(files)

    assert plan.install_command == (
        "PIP_USER=0 python -m pip install --target /workspace/tools/deps -r requirements.txt"
    )
    assert (plan.build_command, plan.outputs) == (ASSEMBLE, ("dist",))
    assert plan.generated.get("requirements.txt") == generated


def test_sources_alone_are_checked_and_laid_out() -> None:
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
def test_a_dependency_that_is_no_requirement_is_refused(version: str) -> None:
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
def test_a_python_that_is_there_is_taken(files: dict[str, str | bytes]) -> None:
    assert plan_of({"app.py": "", **files}).version == "3.11"


@pytest.mark.parametrize(
    ("files", "wish", "evidence"),
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
def test_a_python_that_is_not_there_is_refused(files: dict[str, str | bytes], wish: str | None, evidence: str) -> None:
    error = refused({"app.py": "", **files}, version=wish)

    assert (error.code, error.evidence) == ("unsupported_runtime_version", (evidence,))
    assert "3.11" in error.hint


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
def test_a_site_s_output_is_where_its_page_is(files: dict[str, str | bytes], outputs: tuple[str, ...]) -> None:
    plan = plan_of(files)

    assert (plan.install_command, plan.build_command, plan.outputs) == (None, None, outputs)


def test_hidden_files_are_no_output_but_well_known_ones_are() -> None:
    plan = plan_of({"index.html": "", ".env": "", ".git/config": "", ".well-known/security.txt": ""})

    assert plan.exclude == (".env", ".git")


# --- The plan itself ---------------------------------------------------------------------------------------------


def test_a_plan_is_json_with_the_api_s_names() -> None:
    plan = plan_of({"package.json": built()})

    document = json.loads(json.dumps(plan.as_json()))

    assert (document["runtime"], document["packageManager"], document["buildCommand"]) == (
        "node",
        "npm",
        "npm run build",
    )
    assert (document["outputs"][0], document["rootDir"], document["generated"]) == ("dist", "", {})


def test_nothing_of_a_file_that_a_database_refuses_gets_into_a_plan() -> None:
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
