"""Plans for Python projects: a package built into a wheel, or a folder of sources bundled with its dependencies."""

import contextlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from builds.runtimes.plans import TOOLBOX, TOOLS, Plan, SourceTree, StrategyRequest, command, first_line
from builds.runtimes.runtime import Runtime

_OTHER_MANIFESTS = ("setup.py", "setup.cfg", "requirements.txt", "Pipfile")
MANIFESTS = ("pyproject.toml", *_OTHER_MANIFESTS)
# Outside the sources: the build copies both into one folder.
DEPENDENCIES = f"{TOOLS}/deps"

_MAX_RANGE_CHARS = 256
_TOML_FAULT = re.compile(r"^(?P<problem>.*?) \(at line (?P<line>\d+), column (?P<column>\d+)\)$", re.DOTALL)


def has_manifest(tree: SourceTree) -> bool:
    """Whether the folder has a Python manifest. Raises DetectionError for a broken pyproject.toml."""
    return is_package(tree) or any(name in tree for name in _OTHER_MANIFESTS)


def is_package(tree: SourceTree) -> bool:
    """Whether there is a package to build. A pyproject.toml that only configures tools does not count."""
    pyproject = read_toml(tree, "pyproject.toml") if "pyproject.toml" in tree else {}
    return "project" in pyproject or "build-system" in pyproject or "setup.py" in tree or _declares_package(tree)


def _declares_package(tree: SourceTree) -> bool:
    # Linters also keep their settings in setup.cfg.
    return bool(re.search(r"^\[(?:metadata|options)\]", tree.text("setup.cfg"), re.MULTILINE))


def python_plan(runtime: Runtime, tree: SourceTree, dependencies: Mapping[str, str], strategy: StrategyRequest) -> Plan:
    """The plan for a folder of Python sources. Raises DetectionError."""
    version, why = _version(runtime, tree, strategy)
    parts = _package_plan(tree) if is_package(tree) else _folder_plan(tree, dependencies)
    install, build, generated, how = parts
    return Plan(
        runtime=runtime.name,
        version=version,
        package_manager="pip",
        install_command=command(strategy.install_command, install),
        build_command=command(strategy.build_command, build),
        outputs=strategy.outputs or ("dist",),
        outputs_chosen=bool(strategy.outputs),
        root_dir=tree.root,
        exclude=tuple(sorted(name for name in tree.top_names() if name.startswith("."))),
        generated=generated,
        reasons=(why, how),
    )


_Parts = tuple[str | None, str, dict[str, str], str]


def _package_plan(tree: SourceTree) -> _Parts:
    name = "pyproject.toml" if "pyproject.toml" in tree and "setup.py" not in tree else "setup.py"
    # An isolated build would download its requirements, but the build phase has no network: installation gets them.
    install = f"python -m pip install build && python {TOOLBOX}/python_requires.py"
    how = f"{name} describes a package, so it is built into a wheel and a source archive in dist."
    return install, "python -m build --no-isolation", {}, how


def _folder_plan(tree: SourceTree, dependencies: Mapping[str, str]) -> _Parts:
    generated = _requirements(tree, dependencies)
    build = f"python {TOOLBOX}/assemble.py"
    if not generated and "requirements.txt" not in tree:
        return None, build, {}, "There is no manifest, so the sources are checked and copied to dist."
    install = f"PIP_USER=0 python -m pip install --target {DEPENDENCIES} -r requirements.txt"
    how = "requirements.txt names the dependencies, so they and the sources are copied to dist, ready to run."
    return install, build, generated, how


def _requirements(tree: SourceTree, dependencies: Mapping[str, str]) -> dict[str, str]:
    """The requirements.txt that preparation writes, if there are dependencies that it does not list already."""
    present = tree.text("requirements.txt").splitlines()
    named = _names(present)
    added = [
        _requirement(name, version) for name, version in dependencies.items() if canonicalize_name(name) not in named
    ]
    if "requirements.txt" not in tree and "Pipfile" in tree:
        added += [line for line in _pipfile_requirements(tree) if not _names([line]) & _names(added)]
    return {"requirements.txt": "\n".join([*present, *added]) + "\n"} if added else {}


def _names(lines: Iterable[str]) -> set[str]:
    found = (re.match(r"\s*([A-Za-z0-9][\w.-]*)", line) for line in lines)
    return {canonicalize_name(match[1]) for match in found if match}


def _requirement(name: str, version: str) -> str:
    """A line of requirements.txt for a name and `2.31.0`, `>=2`, `^2.31`, `*` or nothing. Raises DetectionError."""
    wanted = version.strip()
    if wanted in {"", "*", "latest"}:
        wanted = ""
    elif wanted[0] == "^":
        wanted = f">={wanted[1:]},<{_next_major(wanted[1:])}"
    elif wanted[0].isdigit():
        wanted = f"=={wanted}"
    try:
        requirement = Requirement(f"{name} {wanted}")
    except InvalidRequirement as fault:
        raise SourceTree({}).invalid("dependencies", f"{name} {version!r} is not a valid Python requirement") from fault
    return str(requirement)


def _next_major(version: str) -> str:
    try:
        return str(Version(version).major + 1)
    except InvalidVersion:
        return version  # the whole requirement is rejected then


def _pipfile_requirements(tree: SourceTree) -> list[str]:
    """The lines of requirements.txt for a Pipfile.lock, or for a Pipfile without one."""
    if "Pipfile.lock" in tree:
        try:
            packages = json.loads(tree.manifest_text("Pipfile.lock"))["default"]
        except (ValueError, KeyError, TypeError, RecursionError) as fault:
            raise tree.invalid("Pipfile.lock", "it is not a lockfile of Pipenv") from fault
    else:
        packages = read_toml(tree, "Pipfile").get("packages", {})
    return [_pipfile_line(name, wanted) for name, wanted in packages.items()]


def _pipfile_line(name: str, wanted: Any) -> str:
    options = wanted if isinstance(wanted, dict) else {"version": str(wanted)}
    version = str(options.get("version", "*"))
    extras = ",".join(options.get("extras", ()))
    marker = f"; {options['markers']}" if "markers" in options else ""
    return f"{name}{f'[{extras}]' if extras else ''}{'' if version == '*' else version}{marker}"


def _version(runtime: Runtime, tree: SourceTree, strategy: StrategyRequest) -> tuple[str, str]:
    """The Python version and the reason for it."""
    if strategy.version:
        version = runtime.known_version(strategy.version, source="strategy.version")
        return version, f"Python {version}, as set in the strategy."
    for name in (".python-version", "runtime.txt"):
        wanted = first_line(tree.text(name)).removeprefix("python-")
        if wanted:
            version = runtime.known_version(wanted, source=tree.full_path(name))
            return version, f"Python {version}, because {tree.full_path(name)} asks for {wanted}."
    return _version_in_range(runtime, tree)


def _version_in_range(runtime: Runtime, tree: SourceTree) -> tuple[str, str]:
    project = read_toml(tree, "pyproject.toml").get("project", {}) if "pyproject.toml" in tree else {}
    wanted = project.get("requires-python") if isinstance(project, dict) else None
    default = runtime.default_version
    if not isinstance(wanted, str):
        return default, f"Python {default}, the default."
    specifiers = _specifiers(tree, wanted)
    for version in reversed(runtime.versions):
        if any(specifiers.contains(probe) for probe in _probes(version, wanted)):
            return version, f"Python {version}, which satisfies requires-python {wanted}."
    raise runtime.unsupported_version(wanted, source=f"requires-python in {tree.full_path('pyproject.toml')}")


def _specifiers(tree: SourceTree, wanted: str) -> SpecifierSet:
    if len(wanted) <= _MAX_RANGE_CHARS:
        with contextlib.suppress(InvalidSpecifier):
            return SpecifierSet(wanted)
    raise tree.invalid("pyproject.toml", f"requires-python {wanted[:60]!r} is not a version range")


def _probes(version: str, wanted: str) -> list[str]:
    """Versions of one release line to test a range with: a very high one, and those that the range names."""
    return [f"{version}.999", *re.findall(rf"\b{re.escape(version)}\.\d+", wanted)]


def read_toml(tree: SourceTree, path: str) -> dict[str, Any]:
    """A TOML file of the project. Raises DetectionError with line and column of an error."""
    try:
        return tomllib.loads(tree.manifest_text(path))
    except tomllib.TOMLDecodeError as fault:
        match = _TOML_FAULT.match(str(fault))
        if match:
            raise tree.malformed(path, match["problem"], int(match["line"]), int(match["column"])) from fault
        lines = tree.text(path).count("\n") + 1
        raise tree.malformed(path, str(fault).replace(" (at end of document)", ""), lines, 1) from fault
    except (ValueError, RecursionError) as fault:
        raise tree.invalid(path, "it is not valid TOML") from fault
