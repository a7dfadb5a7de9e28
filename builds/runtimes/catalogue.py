"""The language runtimes that a build may run on: their versions, and the images that carry them.

Pure data and look-ups. This module knows neither Docker nor the project's files: `detection` picks a runtime and a
version, and the sandbox pins the image that stands behind the tag.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from chef.refusals import Reason, RefusalError


@dataclass(frozen=True)
class Runtime:
    """One language image family. `versions` ascend; `public_image` is the image that a tag is made from."""

    name: str
    versions: tuple[str, ...]
    default_version: str
    public_image: str

    def image(self, version: str) -> str:
        """The public image of one version, e.g. `node:22-bookworm-slim`."""
        return self.public_image.format(version=version)


class UnknownRuntimeError(RefusalError):
    """A runtime or version that this installation does not have. The text names those that it has.

    `code` is `unknown_runtime` or `unknown_version`.
    """

    code, status = "unknown_runtime", 400

    def __init__(self, code: str, message: str) -> None:
        attr = ("strategy", code.removeprefix("unknown_"))
        super().__init__(message, code=code, reasons=[Reason(code, message, attr)])


RUNTIMES: Mapping[str, Runtime] = MappingProxyType(
    {
        "node": Runtime("node", ("18", "20", "22", "24"), "22", "node:{version}-bookworm-slim"),
        "python": Runtime("python", ("3.11",), "3.11", "python:{version}-slim-bookworm"),
        # A static project runs no commands of its own: the version is the distribution's.
        "static": Runtime("static", ("12",), "12", "debian:bookworm-slim"),
    }
)


def find_runtime(name: str) -> Runtime:
    """The runtime of that name. Raises `UnknownRuntimeError` with the code `unknown_runtime`."""
    try:
        return RUNTIMES[name]
    except KeyError:
        message = f"There is no runtime {name!r}. Choose one of: {', '.join(RUNTIMES)}."
        raise UnknownRuntimeError("unknown_runtime", message) from None


def resolve_version(runtime: str, wish: str | None) -> str:
    """The version to use: the default without a wish, else the version that the wish names.

    `v20`, `20.x` and `20.11.1` all mean Node 20, because one image serves a whole release line.
    Raises `UnknownRuntimeError` with the code `unknown_runtime` or `unknown_version`.
    """
    known = find_runtime(runtime)
    wanted = (wish or "").strip().removeprefix("v")
    if not wanted:
        return known.default_version
    for version in known.versions:
        if _is_in_line(wanted, version):
            return version
    message = f"There is no {runtime} {wish!r}. Choose one of: {', '.join(known.versions)}."
    raise UnknownRuntimeError("unknown_version", message)


def runtime_tag(runtime: str, version: str) -> str:
    """The local tag of the image, e.g. `chef-runtime/node:22`. Raises `UnknownRuntimeError`."""
    return f"chef-runtime/{runtime}:{resolve_version(runtime, version)}"


def _is_in_line(wanted: str, version: str) -> bool:
    """Whether `20`, `20.x` or `20.11.1` belongs to the release line `20`."""
    line = version.split(".")
    parts = wanted.split(".")
    return parts[: len(line)] == line and all(_is_number_or_any(part) for part in parts[len(line) :])


def _is_number_or_any(part: str) -> bool:
    return part in {"x", "X", "*"} or (part.isascii() and part.isdigit())
