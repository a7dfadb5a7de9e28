"""Where Node's build tools write, and the command that runs them if a project does not define one.

The candidates only order the search: missing folders are skipped, so a wrong guess costs nothing unless the folder
exists for another reason.
"""

import json
import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from builds.runtimes.plans import SourceTree

# Framework or tool → where it writes, the best first. A framework comes before the bundler that it uses.
_OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "next": ("out", ".next/standalone", ".next"),
    "nuxt": (".output/public", "dist", ".output"),
    "astro": ("dist",),
    "@sveltejs/kit": ("build",),
    "@react-router/dev": ("build/client",),
    "@remix-run/dev": ("build/client", "public/build"),
    "gatsby": ("public",),
    "@docusaurus/core": ("build",),
    "vitepress": ("docs/.vitepress/dist", ".vitepress/dist"),
    "@11ty/eleventy": ("_site",),
    "hexo": ("public",),
    "react-scripts": ("build",),
    "@vue/cli-service": ("dist",),
    "vite": ("dist",),
    "parcel": ("dist",),
    "webpack": ("dist",),
}
# `public` comes last: most tools read from it.
_DEFAULT_OUTPUTS = ("dist", "build", "out", ".output/public", "public")
_SERVABLE = ("dist", "build", "out", "public")

_BUILD_COMMANDS: Mapping[str, str] = {
    "next": "next build",
    "nuxt": "nuxt generate",
    "astro": "astro build",
    "gatsby": "gatsby build",
    "react-scripts": "react-scripts build",
    "@vue/cli-service": "vue-cli-service build",
    "@angular/cli": "ng build",
    "@11ty/eleventy": "eleventy",
    "vite": "vite build",
    "webpack": "webpack --mode production",
}
_CONFIGS = {"vite": "vite.config", "astro": "astro.config", "webpack": "webpack.config"}
_OUT_DIR = re.compile(r"\boutDir\s*:\s*(['\"`])(?P<path>[^'\"`$]+)\1")
_VITE_ROOT = re.compile(r"^[ \t]*root\s*:\s*(['\"`])(?P<path>[^'\"`$]+)\1", re.MULTILINE)
_WEBPACK_PATH = re.compile(
    r"\bpath\s*:\s*(?:path\s*\.\s*)?(?:resolve|join)\(\s*__dirname\s*,\s*(['\"])(?P<path>[^'\"]+)\1"
)
_TSC_OUT_DIR = re.compile(r"\"outDir\"\s*:\s*\"(?P<path>[^\"]+)\"")
_SCRIPT_FOLDER = re.compile(
    r"(?:--out-?dir|--output-path|--dist-dir|--dest)[= ](['\"]?)(?P<path>[^'\"\s]+)\1", re.IGNORECASE
)
_SCRIPT_FILE = re.compile(r"(?:--outfile|--file|-o)[= ](['\"]?)(?P<path>[\w./-]+\.[cm]?js)\1")


def output_candidates(tree: SourceTree, dependencies: Collection[str], script: str | None) -> tuple[str, ...]:
    """Folders that the build may write to, relative to the tree's root, the likeliest first."""
    found = [*_configured(tree, dependencies, script or "")]
    found += [path for name, paths in _OUTPUTS.items() if name in dependencies for path in paths]
    found += _DEFAULT_OUTPUTS
    # The folder itself always exists, so it must come last or it would hide the others.
    inside = [path for path in found if path != "."]
    return tuple(dict.fromkeys([*inside, *(path for path in found if path == ".")]))


def present_output(tree: SourceTree) -> str | None:
    """A folder of ready-made output that is part of the project."""
    return next((name for name in _SERVABLE if tree.has_folder(name)), None)


def build_script(tree: SourceTree, dependencies: Collection[str]) -> str | None:
    """The build script for a project without package.json, if its tool is known."""
    for name, script in _BUILD_COMMANDS.items():
        if name in dependencies:
            return script
    if "parcel" in dependencies:
        page = next((page for page in ("index.html", "src/index.html") if page in tree), None)
        return f"parcel build {page}" if page else None
    if "rollup" in dependencies and (config := _config_file(tree, "rollup.config")):
        return f"rollup --config {config}"
    if "esbuild" in dependencies and (config := _config_file(tree, "esbuild.config")):
        return f"node {config}"
    return "tsc" if "typescript" in dependencies and "tsconfig.json" in tree else None


def _config_file(tree: SourceTree, stem: str) -> str | None:
    return next((name for name in sorted(tree.top_files()) if name.startswith(f"{stem}.")), None)


def _configured(tree: SourceTree, dependencies: Collection[str], script: str) -> Iterator[str]:
    """Output folders from the tool's own configuration, where simple patterns can find them."""
    paths = [match["path"] for match in _SCRIPT_FOLDER.finditer(script)]
    paths += [posixpath.dirname(match["path"]) or "." for match in _SCRIPT_FILE.finditer(script)]
    for tool, stem in _CONFIGS.items():
        config = _config_file(tree, stem) if tool in dependencies else None
        if config:
            paths += _config_paths(tree.text(config))
    if re.search(r"\btsc\b", script):
        paths += [match["path"] for match in _TSC_OUT_DIR.finditer(tree.text("tsconfig.json"))]
    if "angular.json" in tree:
        paths += _angular_paths(tree)
    yield from _within(paths)


def _config_paths(config: str) -> Iterator[str]:
    root = _VITE_ROOT.search(config)
    for match in _OUT_DIR.finditer(config):
        yield posixpath.join(root["path"] if root else "", match["path"])
    for match in _WEBPACK_PATH.finditer(config):
        yield match["path"]


def _angular_paths(tree: SourceTree) -> Iterator[str]:
    try:
        projects = json.loads(tree.text("angular.json"))["projects"]
        options = {name: project["architect"]["build"].get("options", {}) for name, project in projects.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return  # Angular reports errors in its configuration better
    for name, option in options.items():
        path = option.get("outputPath", f"dist/{name}")
        base = path.get("base", f"dist/{name}") if isinstance(path, dict) else path
        if isinstance(base, str):
            yield from (f"{base}/browser", base)


def _within(paths: Iterable[str]) -> Iterator[str]:
    """The normalized paths, without invalid ones and those outside the project."""
    for path in paths:
        plain = posixpath.normpath(path.replace("\\", "/"))
        if not plain.startswith(("/", "../")) and plain != ".." and len(plain) <= 240 and plain.isprintable():
            yield plain
