"""package.json as the build sees it: the project's, plus the request's dependencies, or one made from them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builds.runtimes.node.outputs import build_script
from builds.runtimes.plans import SourceTree

MANIFEST = "package.json"
_KINDS = ("dependencies", "devDependencies", "optionalDependencies", "peerDependencies")
_ESM = re.compile(
    r"^[ \t]*(?:import\s+(?:[\w*{'\"]|$)|export\s+(?:default|const|let|var|function|class|async|\{|\*))", re.M
)
_COMMONJS = re.compile(r"\bmodule\.exports\b|\bexports\.\w+\s*=|\brequire\(\s*['\"]")


@dataclass(frozen=True)
class PackageProject:
    """A project's manifest as the build sees it. `generated` holds the files that preparation adds."""

    tree: SourceTree
    manifest: Mapping[str, Any]
    is_given: bool  # the user sent a package.json
    generated: Mapping[str, str]
    reasons: tuple[str, ...]

    @property
    def scripts(self) -> Mapping[str, str]:
        scripts: Mapping[str, str] = self.manifest.get("scripts", {})
        return scripts

    @property
    def dependencies(self) -> dict[str, str]:
        return {name: version for kind in _KINDS for name, version in self.manifest.get(kind, {}).items()}

    @property
    def has_new_manifest(self) -> bool:
        """Whether preparation writes package.json, so that a lockfile does not match it."""
        return MANIFEST in self.generated

    @property
    def needs_installation(self) -> bool:
        return bool(self.dependencies or "workspaces" in self.manifest)


def read_project(tree: SourceTree, dependencies: Mapping[str, str]) -> PackageProject:
    """The project in a folder, with the request's dependencies. Raises DetectionError."""
    if MANIFEST in tree:
        return _given_project(tree, dependencies)
    if not dependencies:
        return PackageProject(tree, {}, False, {}, ())
    manifest = _new_manifest(tree, dependencies)
    reason = "package.json was created from the request's dependencies."
    return PackageProject(tree, manifest, False, {MANIFEST: _as_text(manifest)}, (reason,))


def _given_project(tree: SourceTree, dependencies: Mapping[str, str]) -> PackageProject:
    manifest = read_manifest(tree)
    merged = _merge(manifest, dependencies)
    if merged == manifest:
        return PackageProject(tree, manifest, True, {}, ())
    reason = "The request's dependencies were added to package.json, so the lockfile is updated if there is one."
    return PackageProject(tree, merged, True, {MANIFEST: _as_text(merged)}, (reason,))


def _as_text(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=2) + "\n"


def read_manifest(tree: SourceTree) -> dict[str, Any]:
    """package.json, with the fields that we use validated. Raises DetectionError with line and column of an error."""
    try:
        manifest = json.loads(tree.manifest_text(MANIFEST))
    except json.JSONDecodeError as fault:
        raise tree.malformed(MANIFEST, fault.msg, fault.lineno, fault.colno) from fault
    except (ValueError, RecursionError) as fault:
        raise tree.invalid(MANIFEST, "it is not valid JSON") from fault
    if not isinstance(manifest, dict):
        raise tree.invalid(MANIFEST, "it must be a JSON object")
    for field in ("scripts", *_KINDS):
        _check_texts(tree, field, manifest.get(field, {}))
    return manifest


def _check_texts(tree: SourceTree, field: str, value: object) -> None:
    if not isinstance(value, dict):
        raise tree.invalid(MANIFEST, f"`{field}` must be an object of strings, not {json.dumps(value)[:60]}")
    for name, text in value.items():
        if not isinstance(text, str):
            raise tree.invalid(MANIFEST, f"`{field}.{name}` must be a string, not {json.dumps(text)[:60]}")


def _merge(manifest: Mapping[str, Any], dependencies: Mapping[str, str]) -> dict[str, Any]:
    """The manifest with the request's dependencies. One that is listed already stays in its section."""
    merged = {**manifest, **{kind: dict(manifest[kind]) for kind in _KINDS[:2] if kind in manifest}}
    for name, version in dependencies.items():
        kind = "devDependencies" if name in merged.get("devDependencies", {}) else "dependencies"
        merged.setdefault(kind, {})[name] = version
    return merged


def _new_manifest(tree: SourceTree, dependencies: Mapping[str, str]) -> dict[str, Any]:
    wanted = dict(dependencies)
    if "webpack" in wanted:
        wanted.setdefault("webpack-cli", "*")  # without it webpack prompts on the terminal, and a build has none
    manifest: dict[str, Any] = {"name": "app", "private": True, "version": "0.0.0"}
    script = build_script(tree, wanted)
    if _is_esm(tree, wanted, bundled=script is not None):
        manifest["type"] = "module"
    if script:
        manifest["scripts"] = {"build": script}
    return {**manifest, "dependencies": wanted}


def _is_esm(tree: SourceTree, dependencies: Mapping[str, str], *, bundled: bool) -> bool:
    """Whether Node should read plain .js files as ES modules. A bundler parses the sources itself, but Node reads
    its configuration at the top level."""
    names = [name for name in tree.with_suffix(".js") if not bundled or "/" not in name]
    sources = [tree.text(name) for name in names]
    if any(_COMMONJS.search(source) for source in sources):
        return False
    return "vite" in dependencies or any(_ESM.search(source) for source in sources)
