"""npm, pnpm and Yarn: which one a project uses, in which version, and how it installs and runs scripts.

The runtimes' images include only npm. The others are first installed from the registry into the tools folder, in a
version that can read the project's lockfile.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from builds.runtimes.plans import TOOLS, SourceTree, StrategyRequest

_PACKAGE_MANAGER = re.compile(r"(?P<name>npm|pnpm|yarn)@(?P<version>\d+(?:\.\d+){0,2}(?:-[\w.-]+)?)(?:\+.*)?")
# pnpm by the major version of the lockfile it writes; all of them run on every Node that we offer.
_PNPM_BY_LOCKFILE = {"5": "7", "6": "8", "9": "9"}
_PNPM_DEFAULT = "10"  # the last version that runs on Node 18 and 20 and is not a native binary
# Yarn rewrites lockfiles of another format, which --immutable forbids: so the format decides the version.
_YARN_BY_LOCKFILE = {"4": "~3.0.0", "5": "~3.1.0", "6": "^3.2.0", "7": "^3.2.0", "8": ">=4.0.0 <4.14.0", "9": "~4.14.0"}
_YARN_DEFAULT = "4"
_NPM_LOCKFILES = ("package-lock.json", "npm-shrinkwrap.json")
_LOCKFILES = ("pnpm-lock.yaml", "yarn.lock", *_NPM_LOCKFILES)


class PackageManager(Protocol):
    """What a plan needs from a project's package manager."""

    @property
    def name(self) -> str: ...

    @property
    def lockfile(self) -> str | None: ...

    @property
    def reason(self) -> str:
        """Why this manager was chosen, as a sentence."""

    @property
    def bootstrap(self) -> str | None:
        """The command that installs the manager itself; None if the image has it."""

    def install_command(self, *, frozen: bool) -> str:
        """Installs the dependencies; `frozen`: exactly the lockfile's, failing if it does not match the manifest."""

    def run_command(self, script: str) -> str:
        """Runs a script of package.json."""


@dataclass(frozen=True)
class Manager:
    """A project's package manager. `package` is its name and version in the registry, None for npm."""

    name: str
    package: str | None
    lockfile: str | None
    reason: str

    def install_command(self, *, frozen: bool) -> str:
        """Installs the dependencies; `frozen`: exactly the lockfile's, failing if it does not match the manifest."""
        steps = [self.bootstrap, self._frozen() if frozen and self.lockfile else self._free()]
        return " && ".join(step for step in steps if step)

    @property
    def bootstrap(self) -> str | None:
        """Installs the manager itself."""
        if not self.package:
            return None
        return f"npm install --no-audit --no-fund --loglevel=error --prefix {TOOLS} {shlex.quote(self.package)}"

    def run_command(self, script: str) -> str:
        """Runs a script of package.json."""
        return f"{self.name} run {script}"

    @property
    def _is_berry(self) -> bool:
        return bool(self.package and self.package.startswith("@yarnpkg/"))

    def _frozen(self) -> str:
        if self.name == "npm":
            return "npm ci --no-audit --no-fund"
        return "yarn install --immutable" if self._is_berry else f"{self.name} install --frozen-lockfile"

    def _free(self) -> str:
        # Under CI, pnpm and Yarn do not write a lockfile without these options.
        if self.name == "npm":
            return "npm install --no-audit --no-fund"
        if self.name == "pnpm":
            return "pnpm install --no-frozen-lockfile"
        return "yarn install --no-immutable" if self._is_berry else "yarn install"


def choose_manager(tree: SourceTree, manifest: Mapping[str, Any], strategy: StrategyRequest) -> Manager:
    """The manager named by package.json, else that of the lockfile, else one called by the strategy, else npm."""
    lockfile = next((name for name in _LOCKFILES if name in tree), None)
    named = manifest.get("packageManager")
    match = _PACKAGE_MANAGER.fullmatch(named) if isinstance(named, str) else None
    if match:
        return _named_manager(tree, match["name"], match["version"])
    if lockfile == "pnpm-lock.yaml":
        return _pnpm_of_lockfile(tree)
    if lockfile == "yarn.lock":
        return _yarn_of_lockfile(tree)
    if lockfile:
        return Manager("npm", None, lockfile, f"npm, because there is a {lockfile}.")
    return _called_manager(strategy) or Manager("npm", None, None, _why_npm(tree, named))


def _named_manager(tree: SourceTree, name: str, version: str) -> Manager:
    lockfiles = {"pnpm": ("pnpm-lock.yaml",), "yarn": ("yarn.lock",), "npm": _NPM_LOCKFILES}[name]
    lockfile = next((each for each in lockfiles if each in tree), None)
    reason = f"{name} {version}, because packageManager in package.json names it."
    if name == "npm":
        reason = "npm, because packageManager in package.json names it; its version is the image's."
        return Manager("npm", None, lockfile, reason)
    return Manager(name, _package(name, version), lockfile, reason)


def _package(name: str, version: str) -> str:
    """The package to install. Yarn 2 and later are published under another name."""
    is_berry = name == "yarn" and not re.match(r"1(?:\.|$)", version)
    return f"@yarnpkg/cli-dist@{version}" if is_berry else f"{name}@{version}"


def _pnpm_of_lockfile(tree: SourceTree) -> Manager:
    match = re.search(r"^lockfileVersion:\s*['\"]?(\d+)", tree.text("pnpm-lock.yaml"), re.MULTILINE)
    version = _PNPM_BY_LOCKFILE.get(match[1] if match else "", _PNPM_DEFAULT)
    reason = f"pnpm {version}, because pnpm-lock.yaml has its format."
    return Manager("pnpm", f"pnpm@{version}", "pnpm-lock.yaml", reason)


def _yarn_of_lockfile(tree: SourceTree) -> Manager:
    lockfile = tree.text("yarn.lock")
    if "__metadata:" not in lockfile:
        return Manager("yarn", "yarn@1", "yarn.lock", "Yarn 1, because it wrote yarn.lock.")
    release = re.search(r"^yarnPath:.*\byarn-(\d+\.\d+\.\d+)\.c?js", tree.text(".yarnrc.yml"), re.MULTILINE)
    format_version = re.search(r"^__metadata:[ \t]*\r?\n[ \t]+version: (\d+)", lockfile, re.MULTILINE)
    by_format = _YARN_BY_LOCKFILE.get(format_version[1] if format_version else "", _YARN_DEFAULT)
    version = release[1] if release else by_format
    source = ".yarnrc.yml names it" if release else "yarn.lock has its format"
    return Manager("yarn", _package("yarn", version), "yarn.lock", f"Yarn {version}, because {source}.")


def _called_manager(strategy: StrategyRequest) -> Manager | None:
    commands = f"{strategy.install_command or ''}\n{strategy.build_command or ''}"
    match = re.search(r"(?:^|[\s&|;(])(pnpm|yarn)(?=\s|$)", commands, re.MULTILINE)
    if not match:
        return None
    package = f"pnpm@{_PNPM_DEFAULT}" if match[1] == "pnpm" else "yarn@1"
    return Manager(match[1], package, None, f"{match[1]}, because the strategy's commands call it.")


def _why_npm(tree: SourceTree, named: object) -> str:
    if isinstance(named, str):
        return f"npm, because packageManager {named!r} is not supported."
    if "bun.lock" in tree or "bun.lockb" in tree:
        return "npm, which cannot read Bun's lockfile: versions may differ from the locked ones."
    return "npm, because no lockfile names another manager."
