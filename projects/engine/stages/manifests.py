"""The one file that no model writes: package.json, requirements.txt or pyproject.toml, made from the plan.

Names, ranges and scripts have been validated before (`dependencies`, `plan`). Packages that code imports and the plan
does not declare are added in any version.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from projects.engine.limits import Files
from projects.engine.stages.dependencies import ANY, Dependency, dependency_faults, imported, plain_name
from projects.engine.stages.plan import Plan
from projects.engine.stages.tests import Suite

FIRST_VERSION = "0.1.0"
_NODE_KINDS = ("dependencies", "devDependencies", "peerDependencies", "optionalDependencies")


def manifest(plan: Plan, suite: Suite | None, files: Mapping[str, str]) -> dict[str, str]:
    """The manifest files by path, for an app with these files; a static site has none."""
    declared = [*plan.dependencies, *(suite.dependencies if suite else [])]
    wanted = _each_once(plan.runtime, [*declared, *imported(plan.runtime, files)])
    if plan.runtime == "node":
        return {"package.json": _package_json(plan, suite, wanted)}
    if plan.runtime == "static":
        return {}
    if plan.package:
        return {"pyproject.toml": _pyproject(plan, wanted)}
    return _requirements(wanted)


def _each_once(runtime: Any, dependencies: Iterable[Dependency]) -> list[Dependency]:
    """Sorted by name. The first mention decides the range; a package needed at run time is never a dev dependency."""
    found: dict[str, Dependency] = {}
    for each in dependencies:
        name = plain_name(runtime, each.name)
        first = found.setdefault(name, each)
        if first.development and not each.development:
            found[name] = first.model_copy(update={"development": False})
    return [found[name] for name in sorted(found)]


def slug(name: str) -> str:
    """A name that any registry would accept."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60].strip("-") or "app"


def _package_json(plan: Plan, suite: Suite | None, wanted: list[Dependency]) -> str:
    scripts = {script.name: script.command for script in plan.scripts}
    if suite and suite.command:
        scripts.setdefault("test", suite.command)
    document: dict[str, Any] = {
        "name": slug(plan.name),
        "version": FIRST_VERSION,
        "private": True,
        "description": plan.description,
        "type": "commonjs" if plan.commonjs else "module",
        "scripts": scripts,
    }
    for kind, development in (("dependencies", False), ("devDependencies", True)):
        if chosen := {each.name: each.range.strip() or ANY for each in wanted if each.development == development}:
            document[kind] = chosen
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _requirement(each: Dependency) -> str:
    return each.name + ("" if each.range.strip() == ANY else each.range.strip())


def _requirements(wanted: list[Dependency]) -> dict[str, str]:
    files = {"requirements.txt": "".join(f"{_requirement(each)}\n" for each in wanted if not each.development)}
    if for_developers := "".join(f"{_requirement(each)}\n" for each in wanted if each.development):
        files["requirements-dev.txt"] = f"-r requirements.txt\n{for_developers}"
    return files


def _pyproject(plan: Plan, wanted: list[Dependency]) -> str:
    """TOML's basic strings are JSON's, so json writes them."""
    running = [_requirement(each) for each in wanted if not each.development]
    developing = [_requirement(each) for each in wanted if each.development]
    lines = [
        "[build-system]",
        'requires = ["setuptools>=77"]',
        'build-backend = "setuptools.build_meta"',
        "",
        "[project]",
        f"name = {json.dumps(slug(plan.name))}",
        f"version = {json.dumps(FIRST_VERSION)}",
        f"description = {_toml(plan.description)}",
        f"dependencies = {json.dumps(running)}",
    ]
    if developing:
        lines += ["", "[project.optional-dependencies]", f"dev = {json.dumps(developing)}"]
    entries = [script for script in plan.scripts if re.fullmatch(r"[\w.]+:[\w.]+", script.command)]
    if entries:
        lines += ["", "[project.scripts]"]
        lines += [f"{json.dumps(script.name)} = {json.dumps(script.command)}" for script in entries]
    return "\n".join(lines) + "\n"


def _toml(text: str) -> str:
    # A summary is one line; JSON's surrogate pairs are not valid in TOML.
    return json.dumps(" ".join(text.encode(errors="replace").decode().split()), ensure_ascii=False).replace("\x7f", "")


# --- A project's own manifest, after changes -------------------------------------------------------------------------


def changed_manifest_faults(before: Files, after: Files) -> list[str]:
    """Errors in a model's changes to a package.json, as sentences for the model."""
    faults: list[str] = []
    for path, content in after.items():
        if path.rpartition("/")[2] != "package.json" or before.get(path) == content:
            continue
        document = _read(content)
        if document is None:
            faults.append(f"{path}: it is no longer a JSON object.")
            continue
        known = _declared(_read(before.get(path, b"{}")) or {})
        added = [
            Dependency(name=str(name), range=str(wanted), development=False)
            for name, wanted in _declared(document).items()
            if known.get(name) != wanted
        ]
        faults += [f"{path}: {fault}" for fault in dependency_faults("node", added)]
    return faults


def with_new_imports(before: Files, after: Files) -> dict[str, bytes]:
    """The files after a change; packages that the changed code newly imports are added to the top package.json.

    A Python project's manifest is not changed: a module's package name cannot be derived reliably.
    """
    files = dict(after)
    document = _read(after.get("package.json", b""))
    if document is None:
        return files
    own, developing = ({} if not isinstance(document.get(kind), dict) else document[kind] for kind in _NODE_KINDS[:2])
    old = {each.name for each in imported("node", _texts(before, before))}
    changed = [path for path, content in after.items() if before.get(path) != content]
    names_only = dict.fromkeys(after, "")  # to know the project's own folders
    new = imported("node", {**names_only, **_texts(after, changed)})
    missing = [each for each in new if each.name not in old | _declared(document).keys() | _aliases(after)]
    if missing:
        for each in missing:
            (developing if each.development else own)[each.name] = ANY
        document |= {kind: names for kind, names in zip(_NODE_KINDS, (own, developing), strict=False) if names}
        files["package.json"] = _as_before(document, after["package.json"])
    return files


def _texts(files: Files, paths: Iterable[str]) -> dict[str, str]:
    return {path: files[path].decode(errors="replace") for path in paths}


def _read(content: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _declared(document: Mapping[str, Any]) -> dict[str, Any]:
    """All dependencies of a package.json, by name."""
    kinds = (document.get(kind) for kind in _NODE_KINDS)
    return {name: wanted for kind in kinds if isinstance(kind, dict) for name, wanted in kind.items()}


def _aliases(files: Files) -> set[str]:
    """Path aliases from the TypeScript configuration."""
    texts = (files.get(name, b"").decode(errors="replace") for name in ("tsconfig.json", "jsconfig.json"))
    return {name for text in texts for name in re.findall(r'"([^"\s]{1,100}?)(?:/\*)?"\s{0,9}:\s{0,9}\[', text)}


def _as_before(document: dict[str, Any], content: bytes) -> bytes:
    """The JSON text with the indentation and final newline of the original."""
    text = content.decode(errors="replace")
    found = re.search(r"^\{\r?\n([ \t]+)", text)
    indent = found[1] if found else "  "
    return (json.dumps(document, indent=indent, ensure_ascii=False) + ("\n" if text.endswith("\n") else "")).encode()
