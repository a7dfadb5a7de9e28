"""The runtimes that a build may run on, one line each, in the order of lists and choices.

Knows neither Docker nor the project's files: `detection` picks a runtime and a version, and the sandbox pins the image
behind the tag.
"""

from collections.abc import Mapping
from types import MappingProxyType

from builds.runtimes.bun.runtime import BUN
from builds.runtimes.node.runtime import NODE
from builds.runtimes.package_index import PackageIndex
from builds.runtimes.python.runtime import PYTHON
from builds.runtimes.runtime import Runtime, UnknownRuntimeError
from builds.runtimes.static import STATIC

RUNTIMES: Mapping[str, Runtime] = MappingProxyType({each.name: each for each in (NODE, BUN, PYTHON, STATIC)})


def find_runtime(name: str) -> Runtime:
    """The runtime of that name. Raises UnknownRuntimeError with the code `unknown_runtime`."""
    try:
        return RUNTIMES[name]
    except KeyError:
        message = f"There is no runtime {name!r}. Choose one of: {', '.join(RUNTIMES)}."
        raise UnknownRuntimeError("unknown_runtime", message) from None


def resolve_version(runtime: str, wanted: str | None) -> str:
    """The version to use, see `Runtime.resolve`. Raises UnknownRuntimeError for an unknown runtime or version."""
    return find_runtime(runtime).resolve(wanted)


def runtime_tag(runtime: str, version: str) -> str:
    """The local tag of the image, e.g. `chef-runtime/node:22`. Raises UnknownRuntimeError."""
    return f"chef-runtime/{runtime}:{resolve_version(runtime, version)}"


def package_indexes() -> dict[str, PackageIndex]:
    """The package indexes of all runtimes by name, each once."""
    indexes = (runtime.package_index for runtime in RUNTIMES.values())
    return {index.name: index for index in indexes if index is not None}
