"""Detection: from a project's files and the strategy request to a plan with its reasons.

Pure functions over paths and bytes that name no language: each runtime provides the signs of its projects. Whether
paths are safe, commands harmless and outputs inside the project is not decided here: the API validates requests, and
the sandbox contains everything that runs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from builds.runtimes.catalogue import RUNTIMES
from builds.runtimes.plans import DetectionError, Plan, SourceTree, StrategyRequest, refusal
from builds.runtimes.runtime import Runtime
from builds.verdicts.evidence import clean

__all__ = ["DetectionError", "Plan", "StrategyRequest", "detect"]

_Choice = tuple[Runtime, str]  # a runtime and the reason for it


def detect(files: Mapping[str, bytes], *, dependencies: Mapping[str, str], strategy: StrategyRequest) -> Plan:
    """The plan for a project: `files` maps safe paths to contents, `dependencies` names to version ranges.

    Raises DetectionError with the verdict `no_runtime_detected`, `unsupported_runtime_version` or `invalid_manifest`.
    """
    root, why_root = _find_root(files, dependencies, strategy)
    tree = SourceTree(files, root)
    runtime, why_runtime = _choose_runtime(tree, dependencies, strategy)
    plan = runtime.plan(tree, dependencies, strategy)
    # Reasons quote the project's files and are stored.
    return replace(plan, reasons=tuple(clean(reason) for reason in (*why_root, why_runtime, *plan.reasons)))


# --- The folder --------------------------------------------------------------------------------------------------


def _find_root(
    files: Mapping[str, bytes], dependencies: Mapping[str, str], strategy: StrategyRequest
) -> tuple[str, tuple[str, ...]]:
    """The folder to build in, and the reason if it was detected."""
    if strategy.root_dir is not None:
        root = "" if strategy.root_dir == "." else strategy.root_dir.strip("/")
        if root and not SourceTree(files, root).files:
            raise _undetected(detail=f": there are no files in strategy.rootDir {root}")
        return root, ()
    folders = [] if _has_own_sources(files) else _project_folders(files, strategy, with_entries=not dependencies)
    if len(folders) > 1:
        evidence = [f"{folder}/ looks like a project of its own" for folder in sorted(folders)]
        raise _undetected(detail=": there are several projects", evidence=evidence)
    if not folders:
        return "", ()
    return folders[0], (f"The project is in {folders[0]}/, because the top level has no sources of its own.",)


def _has_own_sources(files: Mapping[str, bytes]) -> bool:
    """Whether the top level holds the project itself, and is not just an archive's wrapper around a folder."""
    names = {name for runtime in RUNTIMES.values() for name in runtime.manifests}
    suffixes = tuple(suffix for runtime in RUNTIMES.values() for suffix in runtime.source_suffixes)
    return any(name in names or name.endswith(suffixes) for name in SourceTree(files).top_files())


def _project_folders(files: Mapping[str, bytes], strategy: StrategyRequest, *, with_entries: bool) -> list[str]:
    """Top-level folders that hold a manifest; if none does, those with an entry file."""
    tree = SourceTree(files)
    folders = sorted(name for name in tree.top_names() - tree.top_files() if not name.startswith((".", "__MACOSX")))
    wanted = RUNTIMES.get(strategy.runtime or "")
    manifests = {name for runtime in ([wanted] if wanted else RUNTIMES.values()) for name in runtime.manifests}
    with_manifest = [folder for folder in folders if any(f"{folder}/{name}" in tree for name in manifests)]
    if with_manifest or not with_entries:
        return with_manifest
    entries = [name for runtime in RUNTIMES.values() for name in runtime.entry_files]
    finished = {name for runtime in RUNTIMES.values() for name in runtime.finished_folders}
    return [name for name in folders if name not in finished and any(f"{name}/{entry}" in tree for entry in entries)]


# --- The runtime -------------------------------------------------------------------------------------------------


def _choose_runtime(tree: SourceTree, dependencies: Mapping[str, str], strategy: StrategyRequest) -> _Choice:
    if strategy.runtime:
        if strategy.runtime not in RUNTIMES:
            raise _undetected(detail=f": there is no runtime {strategy.runtime!r}, only {', '.join(RUNTIMES)}")
        runtime = RUNTIMES[strategy.runtime]
        return runtime, f"{runtime.subject}, as set in the strategy."
    signs = [(sign, runtime) for runtime in RUNTIMES.values() for sign in runtime.signs()]
    # In order of rank: files that only a weaker sign would read may be broken, which does not matter then.
    for sign, runtime in sorted(signs, key=lambda pair: pair[0].rank):
        if reason := sign.reason(tree, dependencies, strategy):
            return runtime, reason
    raise _undetected(evidence=_what_there_is(tree))


def _what_there_is(tree: SourceTree) -> Iterable[str]:
    names = sorted(tree.top_names())
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return [f"at the top level: {shown}"] if names else []


def _undetected(**facts: Any) -> DetectionError:
    *suggestions, last = (runtime.suggestion for runtime in RUNTIMES.values())
    return refusal("no_runtime_detected", suggestions=f"{', '.join(suggestions)} or {last}", **facts)
