"""Plans for Node projects: version, package manager, the request's dependencies, commands and outputs."""

import json
from typing import Any

import pytest

from builds.runtimes.detection import Plan
from tests.builds.runtimes.planning import NPM_CI, NPM_INSTALL, TOOLS, built, manifest, plan_of, refused

pytestmark = pytest.mark.once

# --- Version -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "asked", "version"),
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
def test_a_pinned_node_version_is_used(files: dict[str, str], asked: str | None, version: str) -> None:
    plan = plan_of({"package.json": built(engines={"node": ">=18"}), **files}, version=asked)

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
    ("files", "asked", "evidence"),
    [
        ({"package.json": built(engines={"node": "^16"})}, None, "engines.node in package.json: ^16"),
        ({"package.json": built(), ".nvmrc": "lts/gallium"}, None, ".nvmrc: 16"),
        ({"package.json": built(), ".nvmrc": "$(whoami)"}, None, ".nvmrc: $(whoami)"),
        ({"package.json": built(volta={"node": "16.0.0"})}, None, "volta.node in package.json: 16.0.0"),
        ({"package.json": built()}, "23", "strategy.version: 23"),
    ],
)
def test_an_unavailable_node_version_is_refused_with_the_available_ones(
    files: dict[str, str | bytes], asked: str | None, evidence: str
) -> None:
    error = refused(files, version=asked)

    assert (error.code, error.evidence) == ("unsupported_runtime_version", (evidence,))
    assert "18, 20, 22, 24" in error.hint


# --- Package manager ---------------------------------------------------------------------------------------------

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
def test_the_package_manager_follows_from_field_or_lockfile(
    files: dict[str, str], fields: dict[str, Any], install: str, build: str
) -> None:
    plan = plan_of({"package.json": built(**fields), **files}, runtime="node")

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


# --- The request's dependencies ----------------------------------------------------------------------------------


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
def test_dependencies_without_a_manifest_create_one(
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


def test_webpack_adds_its_command_line_package() -> None:
    assert "webpack-cli" in generated_manifest(plan_of({"a.js": ""}, dependencies={"webpack": "5"}))["dependencies"]


def test_dependencies_are_merged_into_an_existing_manifest() -> None:
    given = built(devDependencies={"typescript": "5.0.0"})

    plan = plan_of(
        {"package.json": given, "package-lock.json": "{}"},
        dependencies={"typescript": "5.4.0", "react": "18", "vite": "^6"},
    )

    document = generated_manifest(plan)
    assert document["dependencies"] == {"vite": "^6", "react": "18"}
    assert document["devDependencies"] == {"typescript": "5.4.0"}
    assert document["scripts"] == {"build": "vite build"}
    assert plan.install_command == NPM_INSTALL  # they are not in the lockfile


def test_listed_dependencies_change_nothing() -> None:
    plan = plan_of({"package.json": built(), "package-lock.json": "{}"}, dependencies={"vite": "^6"})

    assert (plan.generated, plan.install_command) == ({}, NPM_CI)


def test_a_generated_manifest_is_in_the_project_s_folder() -> None:
    plan = plan_of({"app/package.json": built()}, dependencies={"react": "18"})

    assert (plan.root_dir, list(plan.generated)) == ("app", ["package.json"])


# --- Build -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["dist", "build", "out", "public"])
def test_ready_made_output_is_used(folder: str) -> None:
    plan = plan_of({"package.json": manifest(), f"{folder}/index.html": ""})

    assert (plan.build_command, plan.outputs, plan.outputs_chosen) == (None, (folder,), False)


def test_a_missing_build_script_is_reported_by_the_package_manager() -> None:
    plan = plan_of({"package.json": manifest(scripts={"start": "node ."}), "index.js": ""})

    assert plan.build_command == "npm run build"
    assert "package.json has no build script, so the build will fail." in plan.reasons


@pytest.mark.parametrize(
    ("asked", "expected"),
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
def test_commands_of_the_strategy_are_used(asked: dict[str, Any], expected: tuple[Any, ...]) -> None:
    plan = plan_of({"package.json": manifest()}, **asked)

    outputs = plan.outputs if plan.outputs_chosen else None
    assert (plan.install_command, plan.build_command, outputs, plan.outputs_chosen) == expected


def test_node_without_a_manifest_runs_the_command_of_the_strategy() -> None:
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
def test_output_candidates_follow_from_the_tool(
    dependencies: dict[str, str], script: str, files: dict[str, str], first: str
) -> None:
    plan = plan_of({"package.json": manifest(scripts={"build": script}, devDependencies=dependencies), **files})

    assert plan.outputs[0] == first
    assert set(plan.outputs) >= {"dist", "build", "out", "public"}
    assert "." not in plan.outputs[:-1]
    assert not plan.outputs_chosen


def test_public_comes_last_if_no_tool_writes_there() -> None:
    assert plan_of({"package.json": built()}).outputs[-1] == "public"
