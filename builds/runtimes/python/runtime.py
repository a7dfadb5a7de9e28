"""The Python runtime."""

from collections.abc import Mapping
from pathlib import Path

from builds.runtimes.plans import TOOLS, Plan, SourceTree, StrategyRequest
from builds.runtimes.python import image
from builds.runtimes.python.index import PIP_INDEX, QUERY
from builds.runtimes.python.projects import MANIFESTS, has_manifest, python_plan
from builds.runtimes.python.symptoms import TOOL_PATTERNS
from builds.runtimes.rootfs import RootFilesystem, Workshop, not_in_release
from builds.runtimes.runtime import Rank, Runtime, Sign
from projects.environment import ReservedFor

_WEB_SUFFIXES = (".js", ".jsx", ".ts", ".tsx", ".mjs", ".vue", ".html")


class Python(Runtime):
    """Python with pip: packages become wheels; other sources are bundled with their dependencies."""

    name = "python"
    title = "Python"
    subject = "Python"
    versions = (image.VERSION,)
    default_version = image.VERSION

    suggestion = "a pyproject.toml or requirements.txt (Python)"
    manifests = MANIFESTS
    source_suffixes = (".py",)

    tool_folders = (f"{TOOLS}/python/bin",)
    variables = {
        "PYTHONUSERBASE": f"{TOOLS}/python",
        "PIP_USER": "1",
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    toolbox_folder = Path(__file__).resolve().parent / "toolbox"

    package_index = PIP_INDEX
    index_query = QUERY
    ca_variables = ("PIP_CERT", "REQUESTS_CA_BUNDLE")
    reserved_variables = {
        ReservedFor.TOOLS: "PYTHONUSERBASE",
        ReservedFor.PROGRAMS: "PYTHONHOME|PYTHONSTARTUP",
        ReservedFor.EGRESS: "REQUESTS_CA_BUNDLE",
        ReservedFor.PACKAGE_MANAGERS: "PIP_.*",
    }

    tool_patterns = TOOL_PATTERNS

    public_image = "python:{version}-slim-bookworm"
    trial = "python --version && python -m pip --version"
    trial_start = "Python {version}."

    def signs(self) -> tuple[Sign, ...]:
        return (
            Sign(Rank.MANIFEST, _by_manifest),
            Sign(Rank.DEPENDENCIES_AND_SOURCES, _by_dependencies),
            Sign(Rank.SOURCES, _by_sources),
        )

    def plan(self, tree: SourceTree, dependencies: Mapping[str, str], strategy: StrategyRequest) -> Plan:
        return python_plan(self, tree, dependencies, strategy)

    def lay_out(self, workshop: Workshop, version: str) -> RootFilesystem:
        if version != image.VERSION:
            raise not_in_release(self.name, version)
        return image.lay_out(workshop, version)


def _by_manifest(tree: SourceTree, dependencies: Mapping[str, str], strategy: StrategyRequest) -> str | None:
    if not has_manifest(tree):
        return None
    return f"Python, because there is a {next(name for name in MANIFESTS if name in tree)}."


def _by_dependencies(tree: SourceTree, dependencies: Mapping[str, str], strategy: StrategyRequest) -> str | None:
    if dependencies and tree.with_suffix(".py") and not tree.with_suffix(*_WEB_SUFFIXES):
        return "Python, because the request names dependencies and the sources are Python."
    return None


def _by_sources(tree: SourceTree, dependencies: Mapping[str, str], strategy: StrategyRequest) -> str | None:
    return "Python, because the sources are Python." if tree.with_suffix(".py") else None


PYTHON = Python()
