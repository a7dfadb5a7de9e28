"""package.json as a build will see it: the project's own, with the dependencies of the request, or one made of them."""

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
    """A project's manifest as the build will see it. `generated` are the files that preparation adds for it."""

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
        """Whether preparation writes package.json, which a lockfile then does not match."""
        return MANIFEST in self.generated

    @property
    def needs_installation(self) -> bool:
        return bool(self.dependencies or "workspaces" in self.manifest)


def read_project(tree: SourceTree, dependencies: Mapping[str, str]) -> PackageProject:
    """The project of a folder, with the dependencies of the request. Raises DetectionError."""
    if MANIFEST in tree:
        return _given_project(tree, dependencies)
    if not dependencies:
        return PackageProject(tree, {}, False, {}, ())
    manifest = _new_manifest(tree, dependencies)
    reason = "package.json was made from the dependencies of the request."
    return PackageProject(tree, manifest, False, {MANIFEST: _as_text(manifest)}, (reason,))


def _given_project(tree: SourceTree, dependencies: Mapping[str, str]) -> PackageProject:
    manifest = read_manifest(tree)
    merged = _merge(manifest, dependencies)
    if merged == manifest:
        return PackageProject(tree, manifest, True, {}, ())
    reason = "The dependencies of the request were added to package.json, so a lockfile is brought up to date."
    return PackageProject(tree, merged, True, {MANIFEST: _as_text(merged)}, (reason,))


def _as_text(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=2) + "\n"


def read_manifest(tree: SourceTree) -> dict[str, Any]:
    """package.json, with what we read of it checked. Raises DetectionError with the line and column of the fault."""
    try:
        manifest = json.loads(tree.manifest_text(MANIFEST))
    except json.JSONDecodeError as fault:
        raise tree.malformed(MANIFEST, fault.msg, fault.lineno, fault.colno) from fault
    except (ValueError, RecursionError) as fault:
        raise tree.invalid(MANIFEST, "it is not well formed") from fault
    if not isinstance(manifest, dict):
        raise tree.invalid(MANIFEST, "it must be a JSON object")
    for field in ("scripts", *_KINDS):
        _check_texts(tree, field, manifest.get(field, {}))
    return manifest


def _check_texts(tree: SourceTree, field: str, value: object) -> None:
    if not isinstance(value, dict):
        raise tree.invalid(MANIFEST, f"`{field}` must be an object of texts, not {json.dumps(value)[:60]}")
    for name, text in value.items():
        if not isinstance(text, str):
            raise tree.invalid(MANIFEST, f"`{field}.{name}` must be a text, not {json.dumps(text)[:60]}")


def _merge(manifest: Mapping[str, Any], dependencies: Mapping[str, str]) -> dict[str, Any]:
    """The manifest with the request's dependencies. One that stands there already keeps its kind."""
    merged = {**manifest, **{kind: dict(manifest[kind]) for kind in _KINDS[:2] if kind in manifest}}
    for name, version in dependencies.items():
        kind = "devDependencies" if name in merged.get("devDependencies", {}) else "dependencies"
        merged.setdefault(kind, {})[name] = version
    return merged


def _new_manifest(tree: SourceTree, dependencies: Mapping[str, str]) -> dict[str, Any]:
    wanted = dict(dependencies)
    if "webpack" in wanted:
        wanted.setdefault("webpack-cli", "*")  # webpack asks at the terminal for it, and a build has none
    manifest: dict[str, Any] = {"name": "app", "private": True, "version": "0.0.0"}
    script = build_script(tree, wanted)
    if _is_esm(tree, wanted, bundled=script is not None):
        manifest["type"] = "module"
    if script:
        manifest["scripts"] = {"build": script}
    return {**manifest, "dependencies": wanted}


def _is_esm(tree: SourceTree, dependencies: Mapping[str, str], *, bundled: bool) -> bool:
    """Whether Node should read plain .js files as ES modules. A bundler reads the sources itself; its configuration
    at the top is Node's."""
    names = [name for name in tree.with_suffix(".js") if not bundled or "/" not in name]
    sources = [tree.text(name) for name in names]
    if any(_COMMONJS.search(source) for source in sources):
        return False
    return "vite" in dependencies or any(_ESM.search(source) for source in sources)
