"""What a runtime is: everything that the rest of Chef asks of a language.

One class describes one runtime, in a module or package of its own beside this one, and `catalogue` lists them. Code
elsewhere asks these objects and names no language.
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
    """A runtime or version that this installation does not have. The text names those that it has.

    `code` is `unknown_runtime` or `unknown_version`.
    """

    code, status = "unknown_runtime", 400

    def __init__(self, code: str, message: str) -> None:
        attr = ("strategy", code.removeprefix("unknown_"))
        super().__init__(message, code=code, reasons=[Reason(code, message, attr)])


class Rank(IntEnum):
    """How much a sign says about a project's runtime, the most telling first."""

    LOCKFILE = 1  # only this runtime's package manager writes it
    MANIFEST = 2
    DEPENDENCIES_AND_SOURCES = 3  # the request names dependencies, and the sources are plainly of this language
    DEPENDENCIES = 4
    ENTRY_FILE = 5
    SOURCES = 6
    ALL_FILES = 7  # nothing names the runtime, but every file could be of it


@dataclass(frozen=True)
class Sign:
    """Something in a project that shows its runtime.

    `reason` is given the files, and the dependencies and the strategy of the request. It returns the sentence for the
    user, or None when the sign is not there. It may raise DetectionError for a file that it has to read and cannot.
    """

    rank: Rank
    reason: Callable[[SourceTree, Mapping[str, str], StrategyRequest], str | None]


class Runtime(ABC):
    """One language, with the family of images that carries it.

    `versions` are release lines and ascend; one image serves a whole line. A subclass has to set each attribute below
    that has no default: without one, TypeError is raised when the class is made.
    """

    # --- What it is called, and in which versions it is there
    name: ClassVar[str]
    title: ClassVar[str]  # as a choice in a form
    subject: ClassVar[str]  # as the beginning of a sentence
    versions: ClassVar[tuple[str, ...]]
    default_version: ClassVar[str]
    shows_version: ClassVar[bool] = True  # whether a version means anything to the user

    # --- How a project of it is recognised
    suggestion: ClassVar[str]  # what to add to files that no runtime recognises: "a package.json (Node)"
    manifests: ClassVar[tuple[str, ...]] = ()  # names that make a folder a project
    entry_files: ClassVar[tuple[str, ...]] = ()  # names that do so where nothing has a manifest
    source_suffixes: ClassVar[tuple[str, ...]] = ()
    # Folders at the top that hold finished files rather than a project of their own.
    finished_folders: ClassVar[tuple[str, ...]] = ()

    # --- What its builds find
    tool_folders: ClassVar[tuple[str, ...]] = ()  # before the system's own folders on PATH
    variables: ClassVar[Mapping[str, str]] = {}
    toolbox_folder: ClassVar[Path | None] = None  # scripts that its commands call; see `toolbox`
    # At the top of a folder that is itself the output: what tools leave there, and is nobody's to publish.
    never_output: ClassVar[tuple[str, ...]] = ()

    # --- Where its package managers fetch from
    package_index: ClassVar[PackageIndex | None] = None
    index_query: ClassVar[str] = ""  # prints, in the image, the URLs of the registries used by default, the index first
    proxy_variables: ClassVar[tuple[str, ...]] = ()  # further names by which a package manager reads its proxy,
    ca_variables: ClassVar[tuple[str, ...]] = ()  # and its bundle of certificate authorities
    # Patterns of upper-case names that a project's environment may not set, and why.
    reserved_variables: ClassVar[Mapping[ReservedFor, str]] = {}

    # --- What its failing tools print
    tool_patterns: ClassVar[Patterns] = Patterns()

    # --- Its image
    public_image: ClassVar[str]  # the public image that a tag is made from, with `{version}`
    trial: ClassVar[str]  # a shell script that an image must be able to run,
    trial_start: ClassVar[str]  # and how the first line that it prints starts, with `{version}`

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if missing := [name for name in Runtime.__annotations__ if not hasattr(cls, name)]:
            raise TypeError(f"{cls.__name__} must set {', '.join(missing)}")

    @abstractmethod
    def signs(self) -> tuple[Sign, ...]:
        """What shows that a project is of this runtime."""

    @abstractmethod
    def plan(self, tree: SourceTree, dependencies: Mapping[str, str], strategy: StrategyRequest) -> Plan:
        """The plan for a folder of this runtime's sources. Raises DetectionError."""

    @abstractmethod
    def lay_out(self, workshop: Workshop, version: str) -> RootFilesystem:
        """The image's root file system, made from packages. Raises UnbuildableError."""

    # --- Versions ------------------------------------------------------------------------------------------------

    def label(self, version: str) -> str:
        """The runtime in one version, as a choice in a form: `Node 22`."""
        return f"{self.title} {version}" if self.shows_version else self.title

    def image(self, version: str) -> str:
        """The public image of one version, e.g. `node:22-bookworm-slim`."""
        return self.public_image.format(version=version)

    def resolve(self, wanted: str | None) -> str:
        """The version to use: the default when none is wanted, else the release line that it belongs to.

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
        """Our version for the one that `source` asks for. Raises DetectionError when there is none."""
        try:
            return self.resolve(wanted)
        except UnknownRuntimeError as error:
            raise self.unsupported_version(wanted, source=source) from error

    def unsupported_version(self, wanted: str, *, source: str) -> DetectionError:
        """The error, to be raised, for a version that there is not; it names those that there are."""
        return refusal(
            "unsupported_runtime_version",
            evidence=[f"{source}: {wanted}"],
            source=source,
            runtime=self.name,
            wanted=wanted,
            available=", ".join(self.versions),
        )

    # --- What its builds find ------------------------------------------------------------------------------------

    @cached_property
    def environment(self) -> Mapping[str, str]:
        """What every phase of its builds finds in its environment, besides what the sandbox itself sets."""
        return {**self.variables, "PATH": ":".join((*self.tool_folders, SYSTEM_PATH))}

    @cached_property
    def toolbox(self) -> Mapping[str, bytes]:
        """Scripts, by name, that its builds find in the sandbox's toolbox, read-only."""
        if self.toolbox_folder is None:
            return {}
        scripts = sorted(self.toolbox_folder.glob("*.*"))
        return {file.name: file.read_bytes() for file in scripts if file.is_file() and file.stem != "__init__"}

    @cached_property
    def patterns(self) -> Patterns:
        """What of a failed command's output tells why, its own tools' words and those of any program."""
        return COMMON + self.tool_patterns

    def left_out(self, tree: SourceTree) -> tuple[str, ...]:
        """Names at the top that an output "." leaves out: hidden ones, and what its tools leave behind."""
        hidden = {name for name in tree.top_names() if name.startswith(".") and name != ".well-known"}
        return tuple(sorted({*self.never_output, *hidden}))


def _is_in_line(wanted: str, version: str) -> bool:
    """Whether `20`, `20.x` or `20.11.1` belongs to the release line `20`."""
    line = version.split(".")
    parts = wanted.split(".")
    return parts[: len(line)] == line and all(_is_number_or_any(part) for part in parts[len(line) :])


def _is_number_or_any(part: str) -> bool:
    return part in {"x", "X", "*"} or (part.isascii() and part.isdigit())
