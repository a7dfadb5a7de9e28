"""Packages that an app depends on: valid names and version ranges, and what the code imports.

A name or range from a model is checked against the registry's own rules before it goes into a manifest; invalid ones go
back to the model. URLs, tags and paths are not accepted as ranges: they would let an answer choose the source.
"""

import ast
import re
import sys
from collections.abc import Iterable, Mapping

import nodesemver
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from projects.engine.model.questions import Document
from projects.engine.request import Runtime

MAX_DEPENDENCIES = 200
MAX_NAME_CHARS = 214
MAX_RANGE_CHARS = 100
ANY = "*"

_NODE_NAME = re.compile(r"(@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9~-][a-z0-9._~-]*")
_PYTHON_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(\[[A-Za-z0-9_-]+(,[A-Za-z0-9_-]+)*\])?")

_NODE_OWN = frozenset(
    [
        "assert",
        "async_hooks",
        "buffer",
        "child_process",
        "cluster",
        "console",
        "constants",
        "crypto",
        "dgram",
        "diagnostics_channel",
        "dns",
        "domain",
        "events",
        "fs",
        "http",
        "http2",
        "https",
        "inspector",
        "module",
        "net",
        "os",
        "path",
        "perf_hooks",
        "process",
        "punycode",
        "querystring",
        "readline",
        "repl",
        "stream",
        "string_decoder",
        "sys",
        "timers",
        "tls",
        "trace_events",
        "tty",
        "url",
        "util",
        "v8",
        "vm",
        "wasi",
        "worker_threads",
        "zlib",
    ]
)
_SCRIPT_SUFFIXES = (".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx", ".vue", ".svelte")
_JS_IMPORT = re.compile(
    # Only what follows `from` is imported: `export const theme = "dark"` needs no package of that name.
    r"""^[ \t]*(?:import\b(?!\.)|export\s{0,9}(?:type\s{1,9})?(?=[*{]))"""
    r"""(?:[^'"`;()]{0,500}?\bfrom)?\s{0,9}['"]([^'"\n]{1,300})['"]"""
    r"""|^(?![ \t]*(?://|\*))[^\n]{0,400}?\b(?:require|import)\(\s{0,9}['"]([^'"\n]{1,300})['"]""",
    re.MULTILINE,
)
_FOR_DEVELOPERS = re.compile(
    r"(^|/)(tests?|__tests__|e2e)/|\.(test|spec)\.|\.config\.[cm]?[jt]s$|(^|/)(test_[^/]*|conftest)\.py$"
)

# The package to install for an imported Python module. Modules that are not here are left to the plan: a guess could
# install an unrelated package.
_PYTHON_PACKAGES = {
    **{
        name: name for name in ("requests", "httpx", "flask", "fastapi", "uvicorn", "numpy", "pandas", "pytest", "rich")
    },
    **{name: name for name in ("django", "click", "typer", "pydantic", "jinja2", "sqlalchemy", "aiohttp", "starlette")},
    **{
        name: name
        for name in ("scipy", "matplotlib", "seaborn", "plotly", "lxml", "redis", "celery", "boto3", "gunicorn")
    },
    **{
        name: name
        for name in ("openpyxl", "tqdm", "markdown", "psutil", "cryptography", "streamlit", "networkx", "sympy")
    },
    "yaml": "pyyaml",
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "dotenv": "python-dotenv",
    "dateutil": "python-dateutil",
    "jwt": "pyjwt",
    "jose": "python-jose",
    "multipart": "python-multipart",
    "rest_framework": "djangorestframework",
    "corsheaders": "django-cors-headers",
    "flask_cors": "flask-cors",
    "flask_sqlalchemy": "flask-sqlalchemy",
    "psycopg2": "psycopg2-binary",
    "pydantic_settings": "pydantic-settings",
}


class Dependency(Document):
    """`range` as the registry of the runtime writes it: `^18.2.0` or `>=2,<3`; `*` is any version."""

    name: str
    range: str
    development: bool


def dependency_faults(runtime: Runtime, dependencies: Iterable[Dependency]) -> list[str]:
    """Errors in the dependencies, as sentences for a model or a person."""
    wanted = list(dependencies)
    if runtime == "static" and wanted:
        return ["A static site cannot have dependencies: leave them out, or choose the runtime node."]
    if len(wanted) > MAX_DEPENDENCIES:
        return [f"There are {len(wanted):,} dependencies, more than the {MAX_DEPENDENCIES} allowed: leave some out."]
    faults: list[str] = []
    seen: set[str] = set()
    for each in wanted:
        shown = f"The dependency {each.name[:60]!r}"
        if not is_name(runtime, each.name):
            faults.append(f"{shown} is not a valid package name: write it as the registry does.")
        elif not is_range(runtime, each.range):
            faults.append(f"{shown} has {each.range[:40]!r}, which is not a valid version range for {runtime}.")
        elif (plain := plain_name(runtime, each.name)) in seen:
            faults.append(f"{shown} is listed twice.")
        else:
            seen.add(plain)
    return faults


def is_name(runtime: Runtime, name: str) -> bool:
    pattern = _PYTHON_NAME if runtime == "python" else _NODE_NAME
    return len(name) <= MAX_NAME_CHARS and pattern.fullmatch(name) is not None


def is_range(runtime: Runtime, text: str) -> bool:
    if len(text) > MAX_RANGE_CHARS or not text.isascii() or not text.isprintable():
        return False
    if text.strip() in ("", ANY):
        return True
    if runtime != "python":
        return nodesemver.valid_range(text, loose=False) is not None
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        return False
    return True


def plain_name(runtime: Runtime, name: str) -> str:
    """The normalised name: two spellings of one package compare equal."""
    return canonicalize_name(name.partition("[")[0]) if runtime == "python" else name


# --- What code imports -----------------------------------------------------------------------------------------------


def imported(runtime: Runtime, texts: Mapping[str, str]) -> list[Dependency]:
    """Packages that the files import and the project does not contain, in any version.

    `development`: imported only by tests and tool configuration.
    """
    found: dict[str, bool] = {}
    for path, text in texts.items():
        for name in _packages(runtime, path, text, texts):
            found[name] = found.get(name, True) and bool(_FOR_DEVELOPERS.search(path))
    return [Dependency(name=name, range=ANY, development=only) for name, only in sorted(found.items())]


def _packages(runtime: Runtime, path: str, text: str, texts: Mapping[str, str]) -> set[str]:
    if runtime == "node" and path.endswith(_SCRIPT_SUFFIXES):
        names = {_node_package(first or second) for first, second in _JS_IMPORT.findall(text)}
        return {name for name in names if name and is_name("node", name) and not _is_folder(name, texts)}
    if runtime == "python" and path.endswith(".py"):
        names = _python_modules(text) - set(sys.stdlib_module_names)
        return {_PYTHON_PACKAGES[name] for name in names if name in _PYTHON_PACKAGES and not _is_folder(name, texts)}
    return set()


def _node_package(wanted: str) -> str:
    """The package of `pkg/part` or `@scope/pkg/part`; empty for Node's own modules, paths and aliases."""
    parts = wanted.split("/")
    if ":" in wanted or parts[0] in _NODE_OWN or wanted[0] in "./~#":
        return ""
    return "/".join(parts[: 2 if wanted.startswith("@") else 1])


def _is_folder(name: str, texts: Mapping[str, str]) -> bool:
    """Whether the project has a file or folder of that name, which configuration may allow to import without a path."""
    starts = tuple(f"{root}{name}{end}" for root in ("", "src/", "app/") for end in ("/", "."))
    return any(path.startswith(starts) for path in texts)


def _python_modules(text: str) -> set[str]:
    """Top-level modules that importing the file requires, without optional ones."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    modules: set[str] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Try) and _minds_missing(node):
            waiting += [*node.orelse, *node.finalbody]
        else:
            waiting += ast.iter_child_nodes(node)
    return modules


def _minds_missing(node: ast.Try) -> bool:
    caught = " ".join(ast.unparse(handler.type) for handler in node.handlers if handler.type)
    return "ImportError" in caught or "ModuleNotFoundError" in caught
