"""From a project's files and the strategy asked for to a plan: runtime, version, commands, outputs, and the reasons.

Pure functions over paths and bytes that name no language: the runtimes say what shows them. Whether paths are safe,
commands harmless and outputs inside the project is not decided here: the API checks what it takes, and the sandbox
holds whatever runs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from builds.runtimes.catalogue import RUNTIMES
from builds.runtimes.plans import DetectionError, Plan, SourceTree, StrategyRequest, refusal
from builds.runtimes.runtime import Runtime
from builds.verdicts.evidence import clean

__all__ = ["DetectionError", "Plan", "StrategyRequest", "detect"]

_Choice = tuple[Runtime, str]  # a runtime and the sentence that says why


def detect(files: Mapping[str, bytes], *, dependencies: Mapping[str, str], strategy: StrategyRequest) -> Plan:
    """The plan for a project: `files` maps safe paths to contents, `dependencies` names to version ranges.

    Raises DetectionError with the verdict `no_runtime_detected`, `unsupported_runtime_version` or `invalid_manifest`.
    """
    root, why_root = _find_root(files, dependencies, strategy)
    tree = SourceTree(files, root)
    runtime, why_runtime = _choose_runtime(tree, dependencies, strategy)
    plan = runtime.plan(tree, dependencies, strategy)
    # Reasons quote the project's files, and are stored.
    return replace(plan, reasons=tuple(clean(reason) for reason in (*why_root, why_runtime, *plan.reasons)))


# --- The folder --------------------------------------------------------------------------------------------------


def _find_root(
    files: Mapping[str, bytes], dependencies: Mapping[str, str], strategy: StrategyRequest
) -> tuple[str, tuple[str, ...]]:
    """The folder to build in, and the sentence about it, if there is anything to say."""
    if strategy.root_dir is not None:
        root = "" if strategy.root_dir == "." else strategy.root_dir.strip("/")
        if root and not SourceTree(files, root).files:
            raise _undetected(detail=f": there are no files in strategy.rootDir {root}")
        return root, ()
    folders = [] if _has_own_sources(files) else _project_folders(files, strategy, with_entries=not dependencies)
    if len(folders) > 1:
        evidence = [f"{folder}/ looks like a project of its own" for folder in sorted(folders)]
        raise _undetected(detail=": they hold several projects", evidence=evidence)
    if not folders:
        return "", ()
    return folders[0], (f"The project is in {folders[0]}/, because nothing else is at the top.",)


def _has_own_sources(files: Mapping[str, bytes]) -> bool:
    """Whether the top is the project's own, rather than the wrapping that an archive puts around it."""
    names = {name for runtime in RUNTIMES.values() for name in runtime.manifests}
    suffixes = tuple(suffix for runtime in RUNTIMES.values() for suffix in runtime.source_suffixes)
    return any(name in names or name.endswith(suffixes) for name in SourceTree(files).top_files())


def _project_folders(files: Mapping[str, bytes], strategy: StrategyRequest, *, with_entries: bool) -> list[str]:
    """Folders at the top that hold a manifest; those with an entry file only when none does."""
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
        return runtime, f"{runtime.subject}, as the strategy asks."
    signs = [(sign, runtime) for runtime in RUNTIMES.values() for sign in runtime.signs()]
    # One after the other: what a lesser sign would have to read may be broken, and is then of no interest.
    for sign, runtime in sorted(signs, key=lambda pair: pair[0].rank):
        if reason := sign.reason(tree, dependencies):
            return runtime, reason
    raise _undetected(evidence=_what_there_is(tree))


def _what_there_is(tree: SourceTree) -> Iterable[str]:
    names = sorted(tree.top_names())
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return [f"at the top: {shown}"] if names else []


def _undetected(**facts: Any) -> DetectionError:
    *suggestions, last = (runtime.suggestion for runtime in RUNTIMES.values())
    return refusal("no_runtime_detected", suggestions=f"{', '.join(suggestions)} or {last}", **facts)
