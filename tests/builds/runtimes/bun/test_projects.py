"""Plans for Bun projects. Pure: nothing is installed or built here."""

from typing import Any

import pytest

from tests.builds.runtimes.planning import built, manifest, plan_of, refused

LOCK = '{"lockfileVersion": 1, "packages": {}}'
FROZEN = "bun install --frozen-lockfile"

# --- Which runtime -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "runtime"),
    [
        ({"package.json": built(), "bun.lock": LOCK}, "bun"),
        ({"package.json": built(), "bun.lockb": b"#!/usr/bin/env bun\nbun-lockfile-format-v0\n\x00\xff"}, "bun"),
        ({"package.json": built(), "bun.lock": LOCK, "package-lock.json": "{}", "requirements.txt": ""}, "bun"),
        ({"package.json": built(packageManager="bun@1.2.3")}, "bun"),
        ({"package.json": built(packageManager="bun@1.2.3+sha.1"), "yarn.lock": ""}, "bun"),
        ({"package.json": built(packageManager="pnpm@9.1.0"), "bun.lock": LOCK}, "node"),
        ({"package.json": built(packageManager=["bun"]), "package-lock.json": "{}"}, "node"),
        ({"package.json": built(), "packages/a/bun.lock": LOCK}, "node"),
        ({"bun.lock": LOCK, "index.html": ""}, "static"),
    ],
)
def test_bun_is_detected_by_lockfile_or_field(files: dict[str, str | bytes], runtime: str) -> None:
    assert plan_of(files).runtime == runtime


def test_a_project_in_a_folder_is_found_with_a_reason() -> None:
    plan = plan_of({"app/package.json": built(), "app/bun.lock": LOCK, "README.md": ""})

    assert (plan.runtime, plan.root_dir) == ("bun", "app")
    assert "Bun, because there is a bun.lock." in plan.reasons
    assert "bun, which installs from bun.lock." in plan.reasons


def test_the_strategy_may_choose_another_runtime() -> None:
    assert plan_of({"package.json": built(), "bun.lock": LOCK}, runtime="node").package_manager == "npm"
    assert plan_of({"package.json": built()}, runtime="bun").install_command == "bun install"


@pytest.mark.parametrize(
    ("asked", "runtime"),
    [
        ({"install_command": "npm ci"}, "node"),
        ({"build_command": "cd web && npm run build"}, "node"),
        ({"build_command": "bun run build --filter=npm-tool"}, "bun"),
        ({"install_command": "npm ci", "runtime": "bun"}, "bun"),
    ],
)
def test_a_strategy_with_another_manager_keeps_node(asked: dict[str, Any], runtime: str) -> None:
    assert plan_of({"package.json": built(), "bun.lock": LOCK}, **asked).runtime == runtime


def test_a_broken_manifest_is_refused_with_line_and_column() -> None:
    error = refused({"package.json": '{"name": ,}', "bun.lock": LOCK})

    assert (error.code, error.evidence[0]) == ("invalid_manifest", "package.json:1:10: Expecting value")


# --- The version -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "asked", "reason"),
    [
        ({}, None, "Bun 1, the default."),
        ({}, "1.2", "Bun 1, as set in the strategy."),
        ({".bun-version": "1.2.3 # ours\n"}, None, "Bun 1, because .bun-version asks for 1.2.3."),
        (
            {"package.json": built(packageManager="bun@1.1.0")},
            None,
            "Bun 1, because packageManager in package.json asks for 1.1.0.",
        ),
        (
            {"package.json": built(engines={"bun": ">=1.1", "node": ">=99"})},
            None,
            "Bun 1, which satisfies engines.bun '>=1.1' in package.json.",
        ),
        ({"package.json": built(engines={"bun": "the newest"})}, None, "Bun 1, the default."),
    ],
)
def test_the_version_is_a_release_line(files: dict[str, str], asked: str | None, reason: str) -> None:
    plan = plan_of({"package.json": built(), "bun.lock": LOCK, **files}, version=asked)

    assert (plan.version, plan.reasons[1]) == ("1", reason)


@pytest.mark.parametrize(
    ("files", "asked", "evidence"),
    [
        ({}, "2", "strategy.version: 2"),
        ({".bun-version": "0.8.1"}, None, ".bun-version: 0.8.1"),
        ({"package.json": built(engines={"bun": "^2"})}, None, "engines.bun in package.json: ^2"),
        ({"package.json": built(packageManager="bun@0.6.9")}, None, "packageManager in package.json: 0.6.9"),
    ],
)
def test_an_unavailable_bun_version_is_refused(files: dict[str, str], asked: str | None, evidence: str) -> None:
    error = refused({"package.json": built(), "bun.lock": LOCK, **files}, runtime="bun", version=asked)

    assert (error.code, error.evidence) == ("unsupported_runtime_version", (evidence,))


# --- The commands ------------------------------------------------------------------------------------------------


def test_bun_installs_as_locked_and_runs_the_build_script() -> None:
    plan = plan_of({"package.json": built(), "bun.lock": LOCK})

    assert (plan.package_manager, plan.install_command, plan.build_command) == ("bun", FROZEN, "bun run build")
    assert plan.outputs[0] == "dist"


def test_dependencies_of_the_request_update_the_lockfile() -> None:
    plan = plan_of({"package.json": built(), "bun.lock": LOCK}, dependencies={"marked": "15"})

    assert plan.install_command == "bun install"
    assert '"marked": "15"' in plan.generated["package.json"]


@pytest.mark.parametrize(
    ("asked", "install", "build"),
    [
        ({"install_command": "bun install --production"}, "bun install --production", "bun run build"),
        ({"install_command": ""}, None, "bun run build"),
        ({"build_command": "bun build a.ts --outdir public"}, FROZEN, "bun build a.ts --outdir public"),
    ],
)
def test_commands_of_the_strategy_are_used(asked: dict[str, Any], install: str | None, build: str) -> None:
    plan = plan_of({"package.json": built(), "bun.lock": LOCK}, **asked)

    assert (plan.install_command, plan.build_command) == (install, build)


@pytest.mark.parametrize(
    ("dependencies", "script", "output"),
    [
        ({"next": "15"}, "next build", "out"),
        ({"astro": "5"}, "astro build", "dist"),
        ({}, "bun build src/a.ts --outdir=lib", "lib"),
    ],
)
def test_output_folders_follow_from_the_build_tool(dependencies: dict[str, str], script: str, output: str) -> None:
    described = manifest(scripts={"build": script}, dependencies=dependencies)

    assert plan_of({"package.json": described, "bun.lock": LOCK}).outputs[0] == output


def test_leftovers_of_tools_at_the_top_are_not_output() -> None:
    plan = plan_of({"package.json": manifest(), "bun.lock": LOCK, ".env": ""}, outputs=(".",))

    assert {"node_modules", ".env"} <= set(plan.exclude)
