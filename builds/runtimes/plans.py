"""What a build will do, and what its planning is made of: the user's strategy, the plan, the source tree, the error.

Pure data. `detection` and the runtimes make plans of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from builds.sandbox.contract import TOOLBOX_DIR, WORKSPACE
from builds.verdicts.evidence import Verdict, verdict
from chef.refusals import Reason, RefusalError

TOOLS = f"{WORKSPACE}/tools"  # what installation adds beside the project; its commands are on the PATH of both phases
TOOLBOX = TOOLBOX_DIR  # the runtime's own scripts, read-only


@dataclass(frozen=True, kw_only=True)
class StrategyRequest:
    """The strategy that the user asks for.

    What is None or empty is detected; a command that is the empty text means: none.
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

    Commands are for `sh -c` in `root_dir`, a path within the project ("" is its top); None means nothing to run.
    `outputs` are relative to `root_dir`, "." being that folder itself. With `outputs_chosen` the user named them and
    all of them are wanted; without, they are candidates and the first that exists is taken. `exclude` are names at the
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
        """The resolved strategy, in the API's words."""
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
    """The files, or the wish, do not make a plan. `verdict` says why and what to do."""

    status = 400

    def __init__(self, verdict: Verdict) -> None:
        reason = Reason(verdict.code, f"{verdict.message} {verdict.hint}", ("files",))
        super().__init__(verdict.message, code=verdict.code, reasons=[reason])
        self.verdict = verdict
        self.message, self.hint = verdict.message, verdict.hint
        self.evidence = verdict.evidence


def refusal(code: str, *, phase: str = "preparation", evidence: Iterable[str] = (), **facts: Any) -> DetectionError:
    """The error for a verdict code, to be raised."""
    return DetectionError(verdict(code, phase=phase, evidence=evidence, **facts))


class SourceTree:
    """The files under one folder of a project, by paths relative to it."""

    def __init__(self, files: Mapping[str, bytes], root: str = "") -> None:
        prefix = f"{root}/" if root else ""
        self.root = root
        self.files = {path.removeprefix(prefix): content for path, content in files.items() if path.startswith(prefix)}

    def __contains__(self, path: object) -> bool:
        return path in self.files

    def full_path(self, path: str) -> str:
        """The path within the project, as the user knows it."""
        return f"{self.root}/{path}" if self.root else path

    def top_names(self) -> set[str]:
        """The names of files and folders at the top."""
        return {path.partition("/")[0] for path in self.files}

    def top_files(self) -> set[str]:
        return {path for path in self.files if "/" not in path}

    def has_folder(self, folder: str) -> bool:
        return any(path.startswith(f"{folder}/") for path in self.files)

    def with_suffix(self, *suffixes: str) -> list[str]:
        return sorted(path for path in self.files if path.endswith(suffixes))

    def text(self, path: str) -> str:
        """A file's text without a byte order mark; empty when there is no such file. Bytes that are no UTF-8 differ."""
        return self.files.get(path, b"").decode("utf-8-sig", errors="replace")

    def manifest_text(self, path: str) -> str:
        """A manifest's text without a byte order mark. Raises DetectionError when it is not UTF-8."""
        try:
            return self.files[path].decode("utf-8-sig")
        except UnicodeDecodeError as fault:
            where = f"{self.full_path(path)}: byte {fault.start} is not UTF-8"
            raise self.invalid(path, "it is not UTF-8 text", evidence=[where]) from fault

    def invalid(self, path: str, detail: str, *, evidence: Iterable[str] = ()) -> DetectionError:
        """The error for a manifest that cannot be used; without better evidence it names the file."""
        full_path = self.full_path(path)
        evidence = [*evidence] or [f"{full_path}: {detail}"]
        return refusal("invalid_manifest", evidence=evidence, file=full_path, detail=detail)

    def malformed(self, path: str, problem: str, line: int, column: int) -> DetectionError:
        """The error for a manifest that cannot be parsed at a line and column, both counted from 1."""
        lines = self.text(path).splitlines()
        evidence = [f"{self.full_path(path)}:{line}:{column}: {problem}", *lines[line - 1 : line]]
        return self.invalid(path, f"{problem} at line {line}, column {column}", evidence=evidence)


def command(asked: str | None, detected: str | None) -> str | None:
    """The command that was asked for, else the detected one; asking for an empty one means none."""
    return detected if asked is None else asked.strip() or None


def first_line(text: str) -> str:
    """The first line that says something, without its comment; empty when there is none."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return next((line for line in lines if line), "")
