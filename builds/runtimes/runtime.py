"""The interface of a runtime: everything that the rest of Chef needs to know about a language.

Each runtime is one class, in its own module or package next to this one, and `catalogue` lists them. Code elsewhere
uses these objects and names no language.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from builds.runtimes.package_index import PackageIndex
from builds.runtimes.plans import DetectionError, Plan, SourceTree, StrategyRequest, refusal
from builds.runtimes.rootfs import RootFilesystem, Workshop
from builds.sandbox.contract import SYSTEM_PATH
from builds.verdicts.patterns import COMMON, Patterns
from chef.refusals import Reason, RefusalError
from projects.environment import ReservedFor


class UnknownRuntimeError(RefusalError):
    """This installation does not have the runtime or version. The text lists those that it has.

    `code` is `unknown_runtime` or `unknown_version`.
    """

    code, status = "unknown_runtime", 400

    def __init__(self, code: str, message: str) -> None:
        attr = ("strategy", code.removeprefix("unknown_"))
        super().__init__(message, code=code, reasons=[Reason(code, message, attr)])


class Rank(IntEnum):
    """How strongly a sign indicates a project's runtime, the strongest first."""

    LOCKFILE = 1  # written only by this runtime's package manager
    MANIFEST = 2
    DEPENDENCIES_AND_SOURCES = 3  # the request names dependencies, and the sources are in this language
    DEPENDENCIES = 4
    ENTRY_FILE = 5
    SOURCES = 6
    ALL_FILES = 7  # nothing names the runtime, but every file could belong to it


@dataclass(frozen=True)
class Sign:
    """Something in a project that indicates its runtime.

    `reason` receives the files, and the request's dependencies and strategy. It returns the reason for the user, or
    None if the sign is missing. It may raise DetectionError for a file that it cannot read.
    """

    rank: Rank
    reason: Callable[[SourceTree, Mapping[str, str], StrategyRequest], str | None]


class Runtime(ABC):
    """One language with its family of images.

    `versions` are release lines, ascending; one image serves a whole line. A subclass must set each attribute below
    that has no default; otherwise TypeError is raised when the class is defined.
    """

    # --- Names and versions
    name: ClassVar[str]
    title: ClassVar[str]  # label in a form
    subject: ClassVar[str]  # start of a sentence
    versions: ClassVar[tuple[str, ...]]
    default_version: ClassVar[str]
    shows_version: ClassVar[bool] = True  # whether a version means anything to the user

    # --- Detection
    suggestion: ClassVar[str]  # what to add to unrecognised files: "a package.json (Node)"
    manifests: ClassVar[tuple[str, ...]] = ()  # file names that make a folder a project
    entry_files: ClassVar[tuple[str, ...]] = ()  # the same, if no folder has a manifest
    source_suffixes: ClassVar[tuple[str, ...]] = ()
    # Top-level folders that hold ready-made output rather than a project.
    finished_folders: ClassVar[tuple[str, ...]] = ()

    # --- Build environment
    tool_folders: ClassVar[tuple[str, ...]] = ()  # before the system's folders on PATH
    variables: ClassVar[Mapping[str, str]] = {}
    toolbox_folder: ClassVar[Path | None] = None  # scripts that its commands call, see `toolbox`
    # Names that tools leave at the top level and that must not be published if the folder itself is the output.
    never_output: ClassVar[tuple[str, ...]] = ()

    # --- Package registry
    package_index: ClassVar[PackageIndex | None] = None
    index_query: ClassVar[str] = ""  # shell command for the image: prints the default registry URLs, the index first
    proxy_variables: ClassVar[tuple[str, ...]] = ()  # extra variables from which a package manager reads its proxy,
    ca_variables: ClassVar[tuple[str, ...]] = ()  # and its file of certificate authorities
    # Patterns of upper-case names that a project's environment must not set, and why.
    reserved_variables: ClassVar[Mapping[ReservedFor, str]] = {}

    # --- Output of failing tools
    tool_patterns: ClassVar[Patterns] = Patterns()

    # --- Image
    public_image: ClassVar[str]  # the public image to pull, with `{version}`
    trial: ClassVar[str]  # a shell script that the image must be able to run,
    trial_start: ClassVar[str]  # and the start of its output, with `{version}`

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if missing := [name for name in Runtime.__annotations__ if not hasattr(cls, name)]:
            raise TypeError(f"{cls.__name__} must set {', '.join(missing)}")

    @abstractmethod
    def signs(self) -> tuple[Sign, ...]:
        """The signs of a project of this runtime."""

    @abstractmethod
    def plan(self, tree: SourceTree, dependencies: Mapping[str, str], strategy: StrategyRequest) -> Plan:
        """The plan for a folder of this runtime's sources. Raises DetectionError."""

    @abstractmethod
    def lay_out(self, workshop: Workshop, version: str) -> RootFilesystem:
        """The image's root file system, built from packages. Raises UnbuildableError."""

    # --- Versions ------------------------------------------------------------------------------------------------

    def label(self, version: str) -> str:
        """The label of one version in a form: `Node 22`."""
        return f"{self.title} {version}" if self.shows_version else self.title

    def image(self, version: str) -> str:
        """The public image of one version, e.g. `node:22-bookworm-slim`."""
        return self.public_image.format(version=version)

    def resolve(self, wanted: str | None) -> str:
        """The version to use: the default if none is wanted, else the release line that it belongs to.

        `v20`, `20.x` and `20.11.1` all mean the line 20. Raises UnknownRuntimeError with the code `unknown_version`.
        """
        plain = (wanted or "").strip().removeprefix("v")
        if not plain:
            return self.default_version
        for version in self.versions:
            if _is_in_line(plain, version):
                return version
        message = f"There is no {self.name} {wanted!r}. Choose one of: {', '.join(self.versions)}."
        raise UnknownRuntimeError("unknown_version", message)

    def known_version(self, wanted: str, *, source: str) -> str:
        """The available version for the one that `source` asks for. Raises DetectionError if there is none."""
        try:
            return self.resolve(wanted)
        except UnknownRuntimeError as error:
            raise self.unsupported_version(wanted, source=source) from error

    def unsupported_version(self, wanted: str, *, source: str) -> DetectionError:
        """The error to raise for an unavailable version; it lists the available ones."""
        return refusal(
            "unsupported_runtime_version",
            evidence=[f"{source}: {wanted}"],
            source=source,
            runtime=self.name,
            wanted=wanted,
            available=", ".join(self.versions),
        )

    # --- Build environment ---------------------------------------------------------------------------------------

    @cached_property
    def environment(self) -> Mapping[str, str]:
        """The environment of every build phase, besides what the sandbox itself sets."""
        return {**self.variables, "PATH": ":".join((*self.tool_folders, SYSTEM_PATH))}

    @cached_property
    def toolbox(self) -> Mapping[str, bytes]:
        """Scripts by name, which builds find read-only in the sandbox's toolbox."""
        if self.toolbox_folder is None:
            return {}
        scripts = sorted(self.toolbox_folder.glob("*.*"))
        return {file.name: file.read_bytes() for file in scripts if file.is_file() and file.stem != "__init__"}

    @cached_property
    def patterns(self) -> Patterns:
        """The patterns for a failed command's output: its own tools' and the common ones."""
        return COMMON + self.tool_patterns

    def left_out(self, tree: SourceTree) -> tuple[str, ...]:
        """Top-level names that an output "." leaves out: hidden ones, and what its tools leave behind."""
        hidden = {name for name in tree.top_names() if name.startswith(".") and name != ".well-known"}
        return tuple(sorted({*self.never_output, *hidden}))


def _is_in_line(wanted: str, version: str) -> bool:
    """Whether `20`, `20.x` or `20.11.1` belongs to the release line `20`."""
    line = version.split(".")
    parts = wanted.split(".")
    return parts[: len(line)] == line and all(_is_number_or_any(part) for part in parts[len(line) :])


def _is_number_or_any(part: str) -> bool:
    return part in {"x", "X", "*"} or (part.isascii() and part.isdigit())
