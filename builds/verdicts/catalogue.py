"""The catalogue of verdict codes: class, message, hint, and whether trying again may help.

The texts are written for the person whose build it was. `class` says whose fault it is and so who must act. Faults of
ours, `infra`, are retried by themselves, except `environment_unreadable`, which no attempt can cure; all others are
final.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class VerdictClass(StrEnum):
    """Whose fault it is."""

    INFRA = "infra"
    BUILD = "build"
    LIMIT = "limit"
    POLICY = "policy"
    CANCELLED = "cancelled"


def _as_seconds(limit: float) -> str:
    return f"{limit:,.10g} seconds"


def _as_count(limit: float) -> str:
    return f"{limit:,.0f}"


def _as_size(limit: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if limit < 1024 or unit == "GiB":
            break
        limit /= 1024
    return f"{limit:,.4g} {unit}"


@dataclass(frozen=True)
class Entry:
    """A code's class and texts. Both are templates; `facts` are what they say when a fact is not known."""

    cls: VerdictClass
    message: str
    hint: str
    retryable: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)
    limit_as: Callable[[float], str] = _as_count


_INFRA, _BUILD, _LIMIT, _POLICY = VerdictClass.INFRA, VerdictClass.BUILD, VerdictClass.LIMIT, VerdictClass.POLICY
_OURS = "This is not the project's fault and Chef tries again by itself. If it stays, tell the operator."

CATALOGUE: Mapping[str, Entry] = {
    # --- Ours ----------------------------------------------------------------------------------------------------
    "engine_unavailable": Entry(_INFRA, "The container engine did not answer.", _OURS, True),
    "storage_unavailable": Entry(_INFRA, "The database or the file store did not answer.", _OURS, True),
    "worker_lost": Entry(_INFRA, "The worker that ran the build disappeared.", _OURS, True),
    "attempts_exhausted": Entry(
        _INFRA, "Every attempt at this build was lost to a fault of the system.", "Retry the build later.", True
    ),
    "image_missing": Entry(
        _INFRA, "The runtime's image is not on this machine.", "The operator runs `manage.py prepare_runtimes`.", True
    ),
    "environment_unreadable": Entry(
        _INFRA,
        "The project's variables {names} cannot be read: Chef has lost the key that they were sealed with.",
        "Set them again by a PATCH of the project, or have the operator put the old key into "
        "CHEF_SECRETS_KEY or SECRET_KEY_FALLBACKS; then retry the build.",
        True,
        facts={"names": "or secrets"},
    ),
    "internal_error": Entry(_INFRA, "Chef failed in a way that it does not know.", _OURS, True),
    # --- Limits --------------------------------------------------------------------------------------------------
    "timeout": Entry(
        _LIMIT,
        "The build ran into its time limit{limit}.",
        "Find what hangs or takes long at the end of the log, or raise `strategy.timeout`.",
        limit_as=lambda limit: f" of {_as_seconds(limit)}",
    ),
    "out_of_memory": Entry(
        _LIMIT,
        "The build needed more memory than it may use{limit}.",
        "Build less at once (fewer workers, no source maps), or raise `strategy.memory`.",
        limit_as=lambda limit: f" ({_as_size(limit)})",
    ),
    "process_limit": Entry(
        _LIMIT,
        "The build started more processes and threads than it may{limit}.",
        "Have the tool use fewer workers, and look for a process that starts itself again and again.",
        limit_as=lambda limit: f" ({_as_count(limit)})",
    ),
    "disk_limit": Entry(
        _LIMIT,
        "The build wrote more to its disk than it may{limit}.",
        "Install fewer dependencies, and look for caches, logs and copies that the build leaves behind.",
        limit_as=lambda limit: f" ({_as_size(limit)})",
    ),
    "too_many_artifacts": Entry(
        _LIMIT,
        "The outputs hold more files than may be kept{limit}.",
        "Name the folder that is really wanted in `strategy.outputs`, or have the build write fewer files.",
        limit_as=lambda limit: f" ({_as_count(limit)})",
    ),
    "artifacts_too_large": Entry(
        _LIMIT,
        "The outputs are larger than may be kept{limit}.",
        "Name the folder that is really wanted in `strategy.outputs`, or leave out source maps and media.",
        limit_as=lambda limit: f" ({_as_size(limit)})",
    ),
    # --- Policy --------------------------------------------------------------------------------------------------
    "egress_blocked": Entry(
        _POLICY,
        "The {phase} phase tried to reach {host}, which builds may not.",
        "Only package registries can be reached, and only during installation. Add what is needed to the project's "
        "files or its dependencies, or ask the operator to allow the host.",
        facts={"host": "the network"},
    ),
    "unsafe_output": Entry(
        _POLICY,
        "An output is a link or a special file, or lies behind a link.",
        "Have the build write regular files into a real folder.",
    ),
    "cancelled": Entry(VerdictClass.CANCELLED, "The build was cancelled.", "Retry it to build the same files again."),
    # --- The project's manifest ----------------------------------------------------------------------------------
    "no_runtime_detected": Entry(
        _BUILD,
        "The files do not say how to build them{detail}.",
        "Add {suggestions} at the top, or set `strategy.runtime`; for a project in a folder, set `strategy.rootDir`.",
        facts={"detail": "", "suggestions": "a manifest"},
    ),
    "unsupported_runtime_version": Entry(
        _BUILD,
        "{source} asks for {runtime} {wanted}, which is not available here.",
        "Ask for one of these versions: {available}.",
        facts={"source": "The project", "runtime": "a runtime", "wanted": "version", "available": "see /v1/runtimes"},
    ),
    "invalid_manifest": Entry(
        _BUILD,
        "{file} cannot be used: {detail}.",
        "Correct it and build again.",
        facts={"file": "A manifest of the project", "detail": "it is not well formed"},
    ),
    "missing_script": Entry(
        _BUILD,
        "There is no script `{script}`.",
        "Add `scripts.{script}` to {manifest}, or say what to do with `strategy.buildCommand` or, when there is "
        "nothing to build, `strategy.outputs`.",
        facts={"script": "build", "manifest": "the manifest"},
    ),
    # --- Dependencies --------------------------------------------------------------------------------------------
    "dependency_not_found": Entry(
        _BUILD,
        "The registry does not have {package}.",
        "Check the name and the version range; a private package needs a registry that has it.",
        facts={"package": "a dependency in the wanted version"},
    ),
    "dependency_conflict": Entry(
        _BUILD,
        "The dependencies contradict each other.",
        "Choose versions that fit together; the evidence names who wants what.",
    ),
    "lockfile_out_of_sync": Entry(
        _BUILD,
        "The lockfile is missing or does not match the manifest.",
        "Run the package manager's install locally and send the new lockfile along, or leave the lockfile out.",
    ),
    "registry_unavailable": Entry(
        # The log alone tells of this, and the log is the build's own: it must not make us try again by ourselves.
        _BUILD,
        "The package manager could not fetch from its registry.",
        "Retry the build; if it stays, check the registry that the project's configuration names.",
        True,
    ),
    "install_failed": Entry(
        _BUILD,
        "The installation {ending}.",
        "The evidence shows what failed; the same command on another machine shows it too.",
        facts={"ending": "failed"},
    ),
    # --- The code ------------------------------------------------------------------------------------------------
    "type_error": Entry(
        _BUILD,
        "{checker} refuses the code{at}.",
        "Correct the types that the evidence names.",
        facts={"checker": "The type checker", "at": ""},
    ),
    "module_not_found": Entry(
        _BUILD,
        "The module {module} cannot be found{at}.",
        "Add the package to the dependencies, or correct the path: upper and lower case matter.",
        facts={"module": "that is imported", "at": ""},
    ),
    "syntax_error": Entry(
        _BUILD, "The code cannot be parsed{at}.", "Correct the syntax where the evidence points.", facts={"at": ""}
    ),
    "command_not_found": Entry(
        _BUILD,
        "The command `{command}` does not exist in the build.",
        "Add the package that brings it to the dependencies, or correct the name.",
        facts={"command": "that was called"},
    ),
    "build_failed": Entry(
        _BUILD,
        "The build command {ending}.",
        "The evidence shows the last errors; the log has the rest.",
        facts={"ending": "failed"},
    ),
    "no_output": Entry(
        _BUILD,
        "The build succeeded but left no files where outputs were looked for.",
        "Name the folder that the build writes in `strategy.outputs`.",
    ),
}
