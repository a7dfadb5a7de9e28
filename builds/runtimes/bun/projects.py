"""Plans for Bun projects: a package.json with Bun's lockfile or with a field that names Bun."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builds.runtimes.node.manifest import MANIFEST, PackageProject, read_project
from builds.runtimes.node.projects import package_plan
from builds.runtimes.node.versions import is_range, satisfying
from builds.runtimes.plans import Plan, SourceTree, StrategyRequest, first_line
from builds.runtimes.runtime import Runtime

LOCKFILES = ("bun.lock", "bun.lockb")  # the second is binary, written by Bun before 1.2
_NAMED = re.compile(r"bun@(?P<version>\d+(?:\.\d+){0,2})(?:\+.*)?")

_OTHER_MANAGERS = re.compile(r"(?:^|[\s&|;(])(?:npm|npx|pnpm|yarn)(?=\s|$)", re.MULTILINE)


@dataclass(frozen=True)
class BunInstaller:
    """Bun as a project's package manager."""

    lockfile: str | None
    reason: str
    name: str = "bun"
    bootstrap: str | None = None

    def install_command(self, *, frozen: bool) -> str:
        """Installs the dependencies; `frozen`: exactly the lockfile's, failing if it does not match the manifest."""
        return "bun install --frozen-lockfile" if frozen and self.lockfile else "bun install"

    def run_command(self, script: str) -> str:
        """Runs a script of package.json."""
        return f"bun run {script}"


def by_lockfile(tree: SourceTree, dependencies: Mapping[str, str], strategy: StrategyRequest) -> str | None:
    """The sentence for a project with Bun's lockfile, unless its manifest or the strategy uses another manager."""
    named = _package_manager(tree)
    if MANIFEST not in tree or (named and not named.startswith("bun@")) or _calls_another(strategy):
        return None
    if named:
        return "Bun, because packageManager in package.json names it."
    lockfile = _lockfile(tree)
    return f"Bun, because there is a {lockfile}." if lockfile else None


def bun_plan(runtime: Runtime, tree: SourceTree, dependencies: Mapping[str, str], strategy: StrategyRequest) -> Plan:
    """The plan for a folder of Bun sources. Raises DetectionError."""
    project = read_project(tree, dependencies)
    version, why_version = _version(runtime, project, strategy)
    lockfile = _lockfile(tree)
    reason = f"bun, which installs from {lockfile}." if lockfile else "bun, without a lockfile."
    installer = BunInstaller(lockfile, reason)
    return package_plan(runtime, project, installer, strategy, version=version, why_version=why_version)


def _lockfile(tree: SourceTree) -> str | None:
    return next((name for name in LOCKFILES if name in tree), None)


def _calls_another(strategy: StrategyRequest) -> bool:
    # Bun replaces other managers in scripts of package.json; commands of the strategy go to the shell.
    commands = f"{strategy.install_command or ''}\n{strategy.build_command or ''}"
    return bool(_OTHER_MANAGERS.search(commands))


def _package_manager(tree: SourceTree) -> str:
    """The manager that packageManager in package.json names; empty if there is none or the file is broken."""
    try:
        manifest = json.loads(tree.text(MANIFEST))
    except (ValueError, RecursionError):
        return ""  # the plan rejects it, with line and column
    named = manifest.get("packageManager") if isinstance(manifest, dict) else None
    return named if isinstance(named, str) else ""


def _version(runtime: Runtime, project: PackageProject, strategy: StrategyRequest) -> tuple[str, str]:
    """The Bun version and the reason for it."""
    if strategy.version:
        version = runtime.known_version(strategy.version, source="strategy.version")
        return version, f"Bun {version}, as set in the strategy."
    named = _NAMED.fullmatch(_package_manager(project.tree))
    pins = {project.tree.full_path(".bun-version"): first_line(project.tree.text(".bun-version"))}
    pins["packageManager in package.json"] = named["version"] if named else ""
    for source, wanted in pins.items():
        if wanted:
            version = runtime.known_version(wanted, source=source)
            return version, f"Bun {version}, because {source} asks for {wanted}."
    engines: Any = project.manifest.get("engines")
    allowed = engines.get("bun") if isinstance(engines, dict) else None
    if isinstance(allowed, str) and is_range(allowed):
        version = satisfying(runtime, allowed, source="engines.bun in package.json")
        return version, f"Bun {version}, which satisfies engines.bun {allowed!r} in package.json."
    return runtime.default_version, f"Bun {runtime.default_version}, the default."
