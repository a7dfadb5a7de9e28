"""The catalogue of verdict codes: class, message, hint, and whether a retry may help.

The texts are written for the build's owner. `class` says what caused the failure and so who must act: `infra` is Chef's
own and is retried automatically, except `environment_unreadable`, which no retry can fix; all others are final.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class VerdictClass(StrEnum):
    """What caused the end of a build: Chef itself, the project, a limit, a policy or a user."""

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
    """A code's class and texts. The texts are templates; `facts` holds the defaults for unknown facts."""

    cls: VerdictClass
    message: str
    hint: str
    retryable: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)
    limit_as: Callable[[float], str] = _as_count


_INFRA, _BUILD, _LIMIT, _POLICY = VerdictClass.INFRA, VerdictClass.BUILD, VerdictClass.LIMIT, VerdictClass.POLICY
_OURS = "Your project did not cause this, and Chef retries automatically. If it keeps happening, ask the operator."

CATALOGUE: Mapping[str, Entry] = {
    # --- Chef's own ----------------------------------------------------------------------------------------------
    "engine_unavailable": Entry(_INFRA, "The container engine did not respond.", _OURS, True),
    "storage_unavailable": Entry(_INFRA, "The database or the file store did not respond.", _OURS, True),
    "worker_lost": Entry(_INFRA, "The worker that ran the build disappeared.", _OURS, True),
    "attempts_exhausted": Entry(
        _INFRA, "Every attempt at this build failed because of a system error.", "Retry the build later.", True
    ),
    "image_missing": Entry(
        _INFRA,
        "The runtime's image is not on this machine.",
        "The operator must run `manage.py prepare_runtimes`.",
        True,
    ),
    "environment_unreadable": Entry(
        _INFRA,
        "The project's variables {names} cannot be decrypted: Chef no longer has their key.",
        "Set them again with a PATCH of the project, or ask the operator to add the old key to "
        "CHEF_SECRETS_KEY or SECRET_KEY_FALLBACKS; then retry the build.",
        True,
        facts={"names": "or secrets"},
    ),
    "internal_error": Entry(_INFRA, "Chef failed with an unexpected error.", _OURS, True),
    # --- Limits --------------------------------------------------------------------------------------------------
    "timeout": Entry(
        _LIMIT,
        "The build exceeded its time limit{limit}.",
        "Look for what hangs or is slow at the end of the log, or raise `strategy.timeout`.",
        limit_as=lambda limit: f" of {_as_seconds(limit)}",
    ),
    "out_of_memory": Entry(
        _LIMIT,
        "The build exceeded its memory limit{limit}.",
        "Do less at once (fewer workers, no source maps), or raise `strategy.memory`.",
        limit_as=lambda limit: f" ({_as_size(limit)})",
    ),
    "process_limit": Entry(
        _LIMIT,
        "The build exceeded its limit of processes and threads{limit}.",
        "Configure the tool to use fewer workers, and look for a process that keeps starting others.",
        limit_as=lambda limit: f" ({_as_count(limit)})",
    ),
    "disk_limit": Entry(
        _LIMIT,
        "The build exceeded its disk limit{limit}.",
        "Install fewer dependencies, and look for caches, logs and copies that the build leaves behind.",
        limit_as=lambda limit: f" ({_as_size(limit)})",
    ),
    "too_many_artifacts": Entry(
        _LIMIT,
        "The outputs hold more files than allowed{limit}.",
        "Name only the folder you need in `strategy.outputs`, or make the build write fewer files.",
        limit_as=lambda limit: f" ({_as_count(limit)})",
    ),
    "artifacts_too_large": Entry(
        _LIMIT,
        "The outputs are larger than allowed{limit}.",
        "Name only the folder you need in `strategy.outputs`, or leave out source maps and media.",
        limit_as=lambda limit: f" ({_as_size(limit)})",
    ),
    # --- Policy --------------------------------------------------------------------------------------------------
    "egress_blocked": Entry(
        _POLICY,
        "The {phase} phase tried to reach {host}, which is not allowed.",
        "Builds can reach only package registries, and only during installation. Add what you need to the project's "
        "files or dependencies, or ask the operator to allow the host.",
        facts={"host": "the network"},
    ),
    "unsafe_output": Entry(
        _POLICY,
        "An output is a link or a special file, or its path goes through a link.",
        "Make the build write regular files into a real folder.",
    ),
    "cancelled": Entry(VerdictClass.CANCELLED, "The build was cancelled.", "Retry it to build the same files again."),
    # --- The project's manifest ----------------------------------------------------------------------------------
    "no_runtime_detected": Entry(
        _BUILD,
        "Chef cannot tell how to build these files{detail}.",
        "Add {suggestions} at the top level, or set `strategy.runtime`; if the project is in a subfolder, set "
        "`strategy.rootDir`.",
        facts={"detail": "", "suggestions": "a manifest"},
    ),
    "unsupported_runtime_version": Entry(
        _BUILD,
        "{source} asks for {runtime} {wanted}, which is not available here.",
        "Use one of these versions: {available}.",
        facts={"source": "The project", "runtime": "a runtime", "wanted": "version", "available": "see /v1/runtimes"},
    ),
    "invalid_manifest": Entry(
        _BUILD,
        "{file} is invalid: {detail}.",
        "Fix it and build again.",
        facts={"file": "A manifest of the project", "detail": "it is not well formed"},
    ),
    "missing_script": Entry(
        _BUILD,
        "There is no script `{script}`.",
        "Add `scripts.{script}` to {manifest}, or set `strategy.buildCommand`, or only `strategy.outputs` if there is "
        "nothing to build.",
        facts={"script": "build", "manifest": "the manifest"},
    ),
    # --- Dependencies --------------------------------------------------------------------------------------------
    "dependency_not_found": Entry(
        _BUILD,
        "The registry does not have {package}.",
        "Check the name and the version range; a private package needs a registry that has it.",
        facts={"package": "a dependency in the requested version"},
    ),
    "dependency_conflict": Entry(
        _BUILD,
        "The dependencies conflict with each other.",
        "Choose compatible versions; the evidence shows which package requires what.",
    ),
    "lockfile_out_of_sync": Entry(
        _BUILD,
        "The lockfile is missing or does not match the manifest.",
        "Run the package manager's install locally and include the new lockfile, or leave the lockfile out.",
    ),
    "registry_unavailable": Entry(
        # The only evidence is the log, which the build controls: it must not trigger automatic retries.
        _BUILD,
        "The package manager could not download from its registry.",
        "Retry the build; if it fails again, check the registry in the project's configuration.",
        True,
    ),
    "install_failed": Entry(
        _BUILD,
        "The installation {ending}.",
        "The evidence shows what failed; running the same command locally may help to find the cause.",
        facts={"ending": "failed"},
    ),
    # --- The code ------------------------------------------------------------------------------------------------
    "type_error": Entry(
        _BUILD,
        "{checker} found type errors{at}.",
        "Fix the type errors shown in the evidence.",
        facts={"checker": "The type checker", "at": ""},
    ),
    "module_not_found": Entry(
        _BUILD,
        "The module {module} cannot be found{at}.",
        "Add the package to the dependencies, or fix the path: upper and lower case matter.",
        facts={"module": "that the code imports", "at": ""},
    ),
    "syntax_error": Entry(
        _BUILD,
        "The code has a syntax error{at}.",
        "Fix the syntax at the place shown in the evidence.",
        facts={"at": ""},
    ),
    "command_not_found": Entry(
        _BUILD,
        "The command `{command}` was not found.",
        "Add the package that provides it to the dependencies, or fix the name.",
        facts={"command": "unknown"},
    ),
    "build_failed": Entry(
        _BUILD,
        "The build command {ending}.",
        "The evidence shows the last errors; the log has the rest.",
        facts={"ending": "failed"},
    ),
    "no_output": Entry(
        _BUILD,
        "The build succeeded but wrote no files to the output folders.",
        "Set `strategy.outputs` to the folder that the build writes to.",
    ),
}
