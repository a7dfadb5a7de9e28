"""The data of planning: the strategy request, the plan, the source tree and the error.

Pure data. `detection` and the runtimes make the plans.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from builds.sandbox.contract import TOOLBOX_DIR, WORKSPACE
from builds.verdicts.evidence import Verdict, verdict
from chef.refusals import Reason, RefusalError

TOOLS = f"{WORKSPACE}/tools"  # what installation adds outside the project; its commands are on the PATH of both phases
TOOLBOX = TOOLBOX_DIR  # the runtime's own scripts, read-only


@dataclass(frozen=True, kw_only=True)
class StrategyRequest:
    """The strategy that the user asks for.

    Fields that are None or empty are detected, but an empty command means: run none.
    """

    runtime: str | None = None
    version: str | None = None
    install_command: str | None = None
    build_command: str | None = None
    root_dir: str | None = None
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a project is built.

    Commands are for `sh -c` in `root_dir`, a path within the project ("" is its top level); None means nothing to run.
    `outputs` are relative to `root_dir`, "." being that folder itself. If `outputs_chosen`, the user named them and
    all are collected; otherwise they are candidates and the first that exists is used. `exclude` holds names at the
    top of `root_dir` that an output "." leaves out. `generated` maps paths, relative to `root_dir`, to the text of
    files that preparation adds or replaces. `reasons` are sentences for the user.
    """

    runtime: str
    version: str
    package_manager: str | None = None
    install_command: str | None = None
    build_command: str | None = None
    outputs: tuple[str, ...] = ()
    outputs_chosen: bool = False
    root_dir: str = ""
    exclude: tuple[str, ...] = ()
    generated: Mapping[str, str] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The resolved strategy, with the API's field names."""
        return {
            "runtime": self.runtime,
            "version": self.version,
            "packageManager": self.package_manager,
            "installCommand": self.install_command,
            "buildCommand": self.build_command,
            "outputs": list(self.outputs),
            "rootDir": self.root_dir,
            "reasons": list(self.reasons),
        }


class DetectionError(RefusalError):
    """No plan can be made from the files and the strategy request. `verdict` says why and what to do."""

    status = 400

    def __init__(self, verdict: Verdict) -> None:
        reason = Reason(verdict.code, f"{verdict.message} {verdict.hint}", ("files",))
        super().__init__(verdict.message, code=verdict.code, reasons=[reason])
        self.verdict = verdict
        self.message, self.hint = verdict.message, verdict.hint
        self.evidence = verdict.evidence


def refusal(code: str, *, phase: str = "preparation", evidence: Iterable[str] = (), **facts: Any) -> DetectionError:
    """The error to raise for a verdict code."""
    return DetectionError(verdict(code, phase=phase, evidence=evidence, **facts))


class SourceTree:
    """The files in one folder of a project, by paths relative to it."""

    def __init__(self, files: Mapping[str, bytes], root: str = "") -> None:
        prefix = f"{root}/" if root else ""
        self.root = root
        self.files = {path.removeprefix(prefix): content for path, content in files.items() if path.startswith(prefix)}

    def __contains__(self, path: object) -> bool:
        return path in self.files

    def full_path(self, path: str) -> str:
        """The path relative to the project, as the user knows it."""
        return f"{self.root}/{path}" if self.root else path

    def top_names(self) -> set[str]:
        """The names of files and folders at the top level."""
        return {path.partition("/")[0] for path in self.files}

    def top_files(self) -> set[str]:
        return {path for path in self.files if "/" not in path}

    def has_folder(self, folder: str) -> bool:
        return any(path.startswith(f"{folder}/") for path in self.files)

    def with_suffix(self, *suffixes: str) -> list[str]:
        return sorted(path for path in self.files if path.endswith(suffixes))

    def text(self, path: str) -> str:
        """A file's text without a byte order mark; empty if there is no such file. Invalid UTF-8 is replaced."""
        return self.files.get(path, b"").decode("utf-8-sig", errors="replace")

    def manifest_text(self, path: str) -> str:
        """A manifest's text without a byte order mark. Raises DetectionError if it is not UTF-8."""
        try:
            return self.files[path].decode("utf-8-sig")
        except UnicodeDecodeError as fault:
            where = f"{self.full_path(path)}: byte {fault.start} is not UTF-8"
            raise self.invalid(path, "it is not UTF-8 text", evidence=[where]) from fault

    def invalid(self, path: str, detail: str, *, evidence: Iterable[str] = ()) -> DetectionError:
        """The error for an invalid manifest; the default evidence names the file."""
        full_path = self.full_path(path)
        evidence = [*evidence] or [f"{full_path}: {detail}"]
        return refusal("invalid_manifest", evidence=evidence, file=full_path, detail=detail)

    def malformed(self, path: str, problem: str, line: int, column: int) -> DetectionError:
        """The error for a manifest that cannot be parsed at a line and column, both counted from 1."""
        lines = self.text(path).splitlines()
        evidence = [f"{self.full_path(path)}:{line}:{column}: {problem}", *lines[line - 1 : line]]
        return self.invalid(path, f"{problem} at line {line}, column {column}", evidence=evidence)


def command(asked: str | None, detected: str | None) -> str | None:
    """The requested command, else the detected one; requesting an empty one means none."""
    return detected if asked is None else asked.strip() or None


def first_line(text: str) -> str:
    """The first line that is not empty, without comments; empty if there is none."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return next((line for line in lines if line), "")
