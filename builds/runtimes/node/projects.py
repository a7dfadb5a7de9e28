"""Plans for Node projects: from package.json, or from the dependencies that a request names without one."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import nodesemver

from builds.runtimes.catalogue import RUNTIMES
from builds.runtimes.node.managers import Manager, choose_manager
from builds.runtimes.node.outputs import build_script, output_candidates, present_output
from builds.runtimes.plans import Plan, SourceTree, Wish, command, known_version, unsupported_version

MANIFEST = "package.json"
_KINDS = ("dependencies", "devDependencies", "optionalDependencies", "peerDependencies")
# The names that nvm and others give to release lines.
_LTS = {"argon": "4", "boron": "6", "carbon": "8", "dubnium": "10", "erbium": "12", "fermium": "14", "gallium": "16"}
_LTS |= {"hydrogen": "18", "iron": "20", "jod": "22", "krypton": "24"}
_NEWEST = {"node", "stable", "current", "latest", "lts", "lts/*", "lts/-0"}
# At the top of a folder that is itself the output: what tools leave there, and what is nobody's to publish.
_NEVER_OUTPUT = ("node_modules", ".git", ".npm", ".cache", ".parcel-cache", ".pnpm-store", ".pnp.cjs", ".yarn")
_ESM = re.compile(
    r"^[ \t]*(?:import\s+(?:[\w*{'\"]|$)|export\s+(?:default|const|let|var|function|class|async|\{|\*))", re.M
)
_COMMONJS = re.compile(r"\bmodule\.exports\b|\bexports\.\w+\s*=|\brequire\(\s*['\"]")


@dataclass(frozen=True)
class _Project:
    """A Node project's manifest as the build will see it."""

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
    def needs_installation(self) -> bool:
        return bool(self.dependencies or "workspaces" in self.manifest)


def node_plan(tree: SourceTree, dependencies: Mapping[str, str], wish: Wish) -> Plan:
    """The plan for a folder of Node sources. Raises DetectionError."""
    project = _project(tree, dependencies)
    version, why_version = _version(project, wish)
    manager = choose_manager(tree, project.manifest, wish)
    build, outputs, why_build = _build(project, manager, wish)
    return Plan(
        runtime="node",
        version=version,
        package_manager=manager.name,
        install_command=_installation(project, manager, wish),
        build_command=build,
        outputs=wish.outputs or outputs,
        outputs_chosen=bool(wish.outputs),
        root_dir=tree.root,
        exclude=_exclude(tree),
        generated=project.generated,
        reasons=(why_version, manager.reason, *project.reasons, why_build),
    )


# --- The manifest ------------------------------------------------------------------------------------------------


def _project(tree: SourceTree, dependencies: Mapping[str, str]) -> _Project:
    if MANIFEST in tree:
        return _given_project(tree, dependencies)
    if not dependencies:
        return _Project(tree, {}, False, {}, ())
    manifest = _new_manifest(tree, dependencies)
    reason = "package.json was made from the dependencies of the request."
    return _Project(tree, manifest, False, {MANIFEST: _as_text(manifest)}, (reason,))


def _given_project(tree: SourceTree, dependencies: Mapping[str, str]) -> _Project:
    manifest = read_manifest(tree)
    merged = _merge(manifest, dependencies)
    if merged == manifest:
        return _Project(tree, manifest, True, {}, ())
    reason = "The dependencies of the request were added to package.json, so a lockfile is brought up to date."
    return _Project(tree, merged, True, {MANIFEST: _as_text(merged)}, (reason,))


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


# --- The version -------------------------------------------------------------------------------------------------


def _version(project: _Project, wish: Wish) -> tuple[str, str]:
    """The Node version and the sentence that says why."""
    if wish.version:
        version = known_version("node", wish.version, source="strategy.version")
        return version, f"Node {version}, as the strategy asks."
    for name in (".nvmrc", ".node-version"):
        if wanted := _first_line(project.tree.text(name)):
            return _pinned(wanted, project.tree.full_path(name))
    if isinstance(wanted := _field(project.manifest, "engines"), str) and _is_range(wanted):
        version = _satisfying(wanted)
        return version, f"Node {version}, which satisfies engines.node {wanted!r} in package.json."
    if isinstance(wanted := _field(project.manifest, "volta"), str):
        return _pinned(wanted, "volta.node in package.json")
    default = RUNTIMES["node"].default_version
    return default, f"Node {default}, the default."


def _field(manifest: Mapping[str, Any], name: str) -> Any:
    value = manifest.get(name)
    return value.get("node") if isinstance(value, dict) else None


def _first_line(text: str) -> str:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return next((line for line in lines if line), "")


def _pinned(wanted: str, source: str) -> tuple[str, str]:
    """Our version for `v20`, `20.11.1`, `lts/iron`, `lts/*` or `node`, and the sentence that says why."""
    name = wanted.lower()
    line = RUNTIMES["node"].versions[-1] if name in _NEWEST else _LTS.get(name.removeprefix("lts/"), name)
    version = known_version("node", line, source=source)
    return version, f"Node {version}, because {source} asks for {wanted}."


def _satisfying(wanted: str) -> str:
    """Our default if the range allows it, else the newest that it allows."""
    node = RUNTIMES["node"]
    allowed = [version for version in node.versions if _is_allowed(version, wanted)]
    if not allowed:
        raise unsupported_version("node", wanted, source="engines.node in package.json")
    return node.default_version if node.default_version in allowed else allowed[-1]


def _is_allowed(version: str, wanted: str) -> bool:
    # The image has the newest of its line, whatever that is by now; a range that names an older one means its line.
    named = re.findall(rf"(?<![\d.]){version}(?:\.\d+){{0,2}}", wanted)
    probes = [f"{version}.999.999", *(".".join((*each.split("."), "0", "0")[:3]) for each in named)]
    return any(_satisfies(probe, wanted) for probe in probes)


def _is_range(text: str) -> bool:
    # npm ignores what is no range, and so do we; its own limit on the length keeps patterns from running away.
    return len(text) <= 256 and nodesemver.valid_range(text, loose=True) is not None


def _satisfies(version: str, wanted: str) -> bool:
    return bool(nodesemver.satisfies(version, wanted, loose=True))


# --- The commands ------------------------------------------------------------------------------------------------


def _installation(project: _Project, manager: Manager, wish: Wish) -> str | None:
    if wish.install_command is not None:
        wished = command(wish.install_command, None)
        return " && ".join(part for part in (manager.bootstrap, wished) if part) or None
    if project.needs_installation or manager.lockfile:
        changed = MANIFEST in project.generated
        return manager.install_command(frozen=not changed)
    return manager.bootstrap


def _build(project: _Project, manager: Manager, wish: Wish) -> tuple[str | None, tuple[str, ...], str]:
    """The build command, the candidates for outputs, and the sentence that says why."""
    script = project.scripts.get("build")
    candidates = output_candidates(project.tree, project.dependencies, wish.build_command or script)
    if wish.build_command is not None:
        return command(wish.build_command, None), candidates, "The strategy says how to build."
    if script is not None:
        return manager.run_command("build"), candidates, f"package.json has a build script: {script}"
    if wish.outputs:
        return None, (), "There is no build script, and the strategy names the outputs: nothing is built."
    if folder := present_output(project.tree):
        return None, (folder,), f"There is no build script, and {folder} is there already: nothing is built."
    if not project.is_given:
        return None, (".",), "No build tool is known among the dependencies: the files are the output as they are."
    # The package manager itself says that the script is missing, and which ones there are.
    return manager.run_command("build"), candidates, "Nothing says how to build: package.json has no build script."


def _exclude(tree: SourceTree) -> tuple[str, ...]:
    hidden = {name for name in tree.top_names() if name.startswith(".") and name != ".well-known"}
    return tuple(sorted({*_NEVER_OUTPUT, *hidden}))
