"""Which Node version a project asks for, and which available version matches it."""

import re
from collections.abc import Mapping
from typing import Any

import nodesemver

from builds.runtimes.node.manifest import PackageProject
from builds.runtimes.plans import StrategyRequest, first_line
from builds.runtimes.runtime import Runtime

# The names that nvm and others give to release lines.
_LTS = {"argon": "4", "boron": "6", "carbon": "8", "dubnium": "10", "erbium": "12", "fermium": "14", "gallium": "16"}
_LTS |= {"hydrogen": "18", "iron": "20", "jod": "22", "krypton": "24"}
_NEWEST = {"node", "stable", "current", "latest", "lts", "lts/*", "lts/-0"}


def choose_version(runtime: Runtime, project: PackageProject, strategy: StrategyRequest) -> tuple[str, str]:
    """The version and the reason for it. Raises DetectionError if it is not available."""
    if strategy.version:
        version = runtime.known_version(strategy.version, source="strategy.version")
        return version, f"Node {version}, as set in the strategy."
    for name in (".nvmrc", ".node-version"):
        if wanted := first_line(project.tree.text(name)):
            return _pinned(runtime, wanted, project.tree.full_path(name))
    if isinstance(wanted := _field(project.manifest, "engines"), str) and is_range(wanted):
        version = satisfying(runtime, wanted, source="engines.node in package.json")
        return version, f"Node {version}, which satisfies engines.node {wanted!r} in package.json."
    if isinstance(wanted := _field(project.manifest, "volta"), str):
        return _pinned(runtime, wanted, "volta.node in package.json")
    default = runtime.default_version
    return default, f"Node {default}, the default."


def _field(manifest: Mapping[str, Any], name: str) -> Any:
    value = manifest.get(name)
    return value.get("node") if isinstance(value, dict) else None


def _pinned(runtime: Runtime, wanted: str, source: str) -> tuple[str, str]:
    """The available version for `v20`, `20.11.1`, `lts/iron`, `lts/*` or `node`, and the reason for it."""
    name = wanted.lower()
    line = runtime.versions[-1] if name in _NEWEST else _LTS.get(name.removeprefix("lts/"), name)
    version = runtime.known_version(line, source=source)
    return version, f"Node {version}, because {source} asks for {wanted}."


def satisfying(runtime: Runtime, wanted: str, *, source: str) -> str:
    """The default if the range allows it, else the newest that it allows. Raises DetectionError if it allows none."""
    allowed = [version for version in runtime.versions if _is_allowed(version, wanted)]
    if not allowed:
        raise runtime.unsupported_version(wanted, source=source)
    return runtime.default_version if runtime.default_version in allowed else allowed[-1]


def _is_allowed(version: str, wanted: str) -> bool:
    # The image has the newest release of its line, which we do not know; a range naming an older one means its line.
    named = re.findall(rf"(?<![\d.]){version}(?:\.\d+){{0,2}}", wanted)
    probes = [f"{version}.999.999", *(".".join((*each.split("."), "0", "0")[:3]) for each in named)]
    return any(_satisfies(probe, wanted) for probe in probes)


def is_range(text: str) -> bool:
    """Whether npm accepts the text as a version range."""
    # npm ignores invalid ranges, and so do we; npm's length limit also bounds the time of pattern matching.
    return len(text) <= 256 and nodesemver.valid_range(text, loose=True) is not None


def _satisfies(version: str, wanted: str) -> bool:
    return bool(nodesemver.satisfies(version, wanted, loose=True))
