"""From a project's files and the user's wish to a plan: runtime, version, commands, outputs, and the reasons for each.

Pure functions over paths and bytes. Whether paths are safe, commands harmless and outputs inside the project is not
decided here: the API checks what it takes, and the sandbox holds whatever runs.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from builds.runtimes.catalogue import RUNTIMES
from builds.runtimes.node.projects import MANIFEST, node_plan
from builds.runtimes.plans import DetectionError, Plan, SourceTree, Wish, command, known_version, refusal
from builds.runtimes.python import MANIFESTS, has_manifest, python_plan
from builds.verdicts.evidence import clean

__all__ = ["DetectionError", "Plan", "Wish", "detect"]

_PAGE = "index.html"
# What makes a folder the project's own, rather than the wrapping that an archive puts around it.
_SOURCE_SUFFIXES = (".py", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".html", ".css", ".vue", ".svelte")
_SITE_SUFFIXES = (
    *(".html", ".htm", ".css", ".js", ".mjs", ".json", ".map", ".svg", ".png", ".jpg", ".jpeg", ".gif", ".webp"),
    *(".avif", ".ico", ".woff", ".woff2", ".ttf", ".otf", ".txt", ".xml", ".md", ".webmanifest", ".pdf", ".wasm"),
    *(".mp3", ".mp4", ".webm", ".ogg", ".wav", ".csv"),
)
_FINISHED = ("public", "dist")

_Choice = tuple[str, str]  # a runtime and the sentence that says why


def detect(files: Mapping[str, bytes], *, dependencies: Mapping[str, str], wish: Wish) -> Plan:
    """The plan for a project: `files` maps safe paths to contents, `dependencies` names to version ranges.

    Raises DetectionError with the verdict `no_runtime_detected`, `unsupported_runtime_version`, `invalid_manifest` or
    `missing_script`.
    """
    root, why_root = _find_root(files, dependencies, wish)
    tree = SourceTree(files, root)
    runtime, why_runtime = _choose_runtime(tree, dependencies, wish)
    plan = _PLANNERS[runtime](tree, dependencies, wish)
    # Reasons quote the project's files, and are stored.
    return replace(plan, reasons=tuple(clean(reason) for reason in (*why_root, why_runtime, *plan.reasons)))


# --- The folder --------------------------------------------------------------------------------------------------


def _find_root(files: Mapping[str, bytes], dependencies: Mapping[str, str], wish: Wish) -> tuple[str, tuple[str, ...]]:
    """The folder to build in, and the sentence about it, if there is anything to say."""
    if wish.root_dir is not None:
        root = "" if wish.root_dir == "." else wish.root_dir.strip("/")
        if root and not SourceTree(files, root).files:
            raise refusal("no_runtime_detected", detail=f": there are no files in strategy.rootDir {root}")
        return root, ()
    folders = [] if _has_own_sources(files) else _project_folders(files, wish, with_pages=not dependencies)
    if len(folders) > 1:
        evidence = [f"{folder}/ looks like a project of its own" for folder in sorted(folders)]
        raise refusal("no_runtime_detected", detail=": they hold several projects", evidence=evidence)
    if not folders:
        return "", ()
    return folders[0], (f"The project is in {folders[0]}/, because nothing else is at the top.",)


def _has_own_sources(files: Mapping[str, bytes]) -> bool:
    names = _manifests(None)
    return any(name in names or name.endswith(_SOURCE_SUFFIXES) for name in SourceTree(files).top_files())


def _manifests(runtime: str | None) -> tuple[str, ...]:
    """The names that mark a project of a runtime, or of any."""
    python = ("pyproject.toml", *MANIFESTS)
    return {"node": (MANIFEST,), "python": python, "static": ()}.get(runtime or "", (MANIFEST, *python))


def _project_folders(files: Mapping[str, bytes], wish: Wish, *, with_pages: bool) -> list[str]:
    """Folders at the top that hold a manifest; those with a page only when none does."""
    tree = SourceTree(files)
    folders = sorted(name for name in tree.top_names() - tree.top_files() if not name.startswith((".", "__MACOSX")))
    manifests = _manifests(wish.runtime)
    with_manifest = [folder for folder in folders if any(f"{folder}/{name}" in tree for name in manifests)]
    if with_manifest or not with_pages:
        return with_manifest
    return [name for name in folders if f"{name}/{_PAGE}" in tree and name not in _FINISHED]


# --- The runtime -------------------------------------------------------------------------------------------------


def _choose_runtime(tree: SourceTree, dependencies: Mapping[str, str], wish: Wish) -> _Choice:
    if wish.runtime:
        if wish.runtime not in RUNTIMES:
            detail = f": there is no runtime {wish.runtime!r}, only {', '.join(RUNTIMES)}"
            raise refusal("no_runtime_detected", detail=detail)
        return wish.runtime, f"{_TITLES[wish.runtime]}, as the strategy asks."
    choice = _by_manifest(tree) or _by_dependencies(tree, dependencies) or _by_sources(tree)
    if not choice:
        raise refusal("no_runtime_detected", evidence=_what_there_is(tree))
    return choice


def _by_manifest(tree: SourceTree) -> _Choice | None:
    if MANIFEST in tree:
        return "node", "Node, because there is a package.json."
    if has_manifest(tree):
        name = next(name for name in ("pyproject.toml", *MANIFESTS) if name in tree)
        return "python", f"Python, because there is a {name}."
    return None


def _by_dependencies(tree: SourceTree, dependencies: Mapping[str, str]) -> _Choice | None:
    if not dependencies:
        return None
    if tree.with_suffix(".py") and not tree.with_suffix(".js", ".jsx", ".ts", ".tsx", ".mjs", ".vue", ".html"):
        return "python", "Python, because the request names dependencies and the sources are Python."
    return "node", "Node, because the request names dependencies."


def _by_sources(tree: SourceTree) -> _Choice | None:
    if _PAGE in tree:
        return "static", "A static site, because there is an index.html and nothing to build."
    if tree.with_suffix(".py"):
        return "python", "Python, because the sources are Python."
    visible = [path for path in tree.files if not path.startswith(".")]
    sites = [path for path in visible if path.lower().endswith(_SITE_SUFFIXES)]
    if tree.with_suffix(".html", ".htm", ".css", ".js") and len(sites) == len(visible):
        return "static", "A static site, because all files are pages, styles, scripts and media."
    return None


def _what_there_is(tree: SourceTree) -> Iterable[str]:
    names = sorted(tree.top_names())
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return [f"at the top: {shown}"] if names else []


# --- Static sites ------------------------------------------------------------------------------------------------


def _static_plan(tree: SourceTree, dependencies: Mapping[str, str], wish: Wish) -> Plan:
    """The plan for files that are served as they are; `dependencies` mean nothing to them."""
    version = known_version("static", wish.version or "", source="strategy.version")
    folder = _site_folder(tree)
    return Plan(
        runtime="static",
        version=version,
        install_command=command(wish.install_command, None),
        build_command=command(wish.build_command, None),
        outputs=wish.outputs or (folder,),
        outputs_chosen=bool(wish.outputs),
        root_dir=tree.root,
        exclude=tuple(sorted(name for name in tree.top_names() if name.startswith(".") and name != ".well-known")),
        reasons=(f"Nothing is built: {'all files are' if folder == '.' else f'{folder}/ is'} the output.",),
    )


def _site_folder(tree: SourceTree) -> str:
    if _PAGE in tree:
        return "."
    return next((folder for folder in _FINISHED if f"{folder}/{_PAGE}" in tree), ".")


_TITLES = {"node": "Node", "python": "Python", "static": "A static site"}
_PLANNERS: Mapping[str, Callable[[SourceTree, Mapping[str, str], Wish], Plan]] = {
    "node": node_plan,
    "python": python_plan,
    "static": _static_plan,
}
