"""Why a build ended otherwise than completed: the one catalogue of verdict codes, and the way from an error to one.

The texts are written for the person whose build it was. `class` says whose fault it is and so who must act: `infra` is
ours and tried again by itself; all others are final. Knows neither the database nor the sandbox.
"""

import re
import signal
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from builds.symptoms import FETCH_FAILED, NETWORK_ERROR, PRECEDENCE, Sign, is_error_like, signs

MAX_EVIDENCE_LINES = 10
MAX_LINE_CHARS = 400


class VerdictClass(StrEnum):
    """Whose fault it is."""

    INFRA = "infra"
    BUILD = "build"
    LIMIT = "limit"
    POLICY = "policy"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Verdict:
    """Why a build ended.

    `evidence` are log lines, the most telling first. `retryable`: the same build may well succeed when tried again
    unchanged. `phase` is a phase's name, or empty before the first. `exit_code` is the failed command's, if one failed.
    """

    cls: VerdictClass
    code: str
    phase: str
    message: str
    evidence: tuple[str, ...]
    hint: str
    retryable: bool
    exit_code: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The verdict as the API gives it."""
        return {
            "class": self.cls.value,
            "code": self.code,
            "phase": self.phase,
            "message": self.message,
            "evidence": list(self.evidence),
            "hint": self.hint,
            "retryable": self.retryable,
            "exitCode": self.exit_code,
        }


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
class _Entry:
    """A code's texts. Both are templates; `facts` are what they say when a fact is not known."""

    cls: VerdictClass
    message: str
    hint: str
    retryable: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)
    limit_as: Callable[[float], str] = _as_count


_INFRA, _BUILD, _LIMIT, _POLICY = VerdictClass.INFRA, VerdictClass.BUILD, VerdictClass.LIMIT, VerdictClass.POLICY
_OURS = "This is not the project's fault and Chef tries again by itself. If it stays, tell the operator."

CATALOGUE: Mapping[str, _Entry] = {
    # --- Ours ----------------------------------------------------------------------------------------------------
    "engine_unavailable": _Entry(_INFRA, "The container engine did not answer.", _OURS, True),
    "storage_unavailable": _Entry(_INFRA, "The database or the file store did not answer.", _OURS, True),
    "worker_lost": _Entry(_INFRA, "The worker that ran the build disappeared.", _OURS, True),
    "attempts_exhausted": _Entry(
        _INFRA, "Every attempt at this build was lost to a fault of the system.", "Retry the build later.", True
    ),
    "image_missing": _Entry(
        _INFRA, "The runtime's image is not on this machine.", "The operator runs `manage.py prepare_runtimes`.", True
    ),
    "internal_error": _Entry(_INFRA, "Chef failed in a way that it does not know.", _OURS, True),
    # --- Limits --------------------------------------------------------------------------------------------------
    "timeout": _Entry(
        _LIMIT,
        "The build ran into its time limit{limit}.",
        "Find what hangs or takes long at the end of the log, or raise `strategy.timeout`.",
        limit_as=lambda limit: f" of {_as_seconds(limit)}",
    ),
    "out_of_memory": _Entry(
        _LIMIT,
        "The build needed more memory than it may use{limit}.",
        "Build less at once (fewer workers, no source maps), or raise `strategy.memory`.",
        limit_as=lambda limit: f" ({_as_size(limit)})",
    ),
    "process_limit": _Entry(
        _LIMIT,
        "The build started more processes and threads than it may{limit}.",
        "Have the tool use fewer workers, and look for a process that starts itself again and again.",
        limit_as=lambda limit: f" ({_as_count(limit)})",
    ),
    "disk_limit": _Entry(
        _LIMIT,
        "The build wrote more to its disk than it may{limit}.",
        "Install fewer dependencies, and look for caches, logs and copies that the build leaves behind.",
        limit_as=lambda limit: f" ({_as_size(limit)})",
    ),
    "too_many_artifacts": _Entry(
        _LIMIT,
        "The outputs hold more files than may be kept{limit}.",
        "Name the folder that is really wanted in `strategy.outputs`, or have the build write fewer files.",
        limit_as=lambda limit: f" ({_as_count(limit)})",
    ),
    "artifacts_too_large": _Entry(
        _LIMIT,
        "The outputs are larger than may be kept{limit}.",
        "Name the folder that is really wanted in `strategy.outputs`, or leave out source maps and media.",
        limit_as=lambda limit: f" ({_as_size(limit)})",
    ),
    # --- Policy --------------------------------------------------------------------------------------------------
    "egress_blocked": _Entry(
        _POLICY,
        "The {phase} phase tried to reach {host}, which builds may not.",
        "Only package registries can be reached, and only during installation. Add what is needed to the project's "
        "files or its dependencies, or ask the operator to allow the host.",
        facts={"host": "the network"},
    ),
    "unsafe_output": _Entry(
        _POLICY,
        "An output is a link or a special file, or lies behind a link.",
        "Have the build write regular files into a real folder.",
    ),
    "cancelled": _Entry(VerdictClass.CANCELLED, "The build was cancelled.", "Retry it to build the same files again."),
    # --- The project's manifest ----------------------------------------------------------------------------------
    "no_runtime_detected": _Entry(
        _BUILD,
        "The files do not say how to build them{detail}.",
        "Add a package.json (Node), a pyproject.toml or requirements.txt (Python) or an index.html (a static site) "
        "at the top, or set `strategy.runtime`; for a project in a folder, set `strategy.rootDir`.",
        facts={"detail": ""},
    ),
    "unsupported_runtime_version": _Entry(
        _BUILD,
        "{source} asks for {runtime} {wanted}, which is not available here.",
        "Ask for one of these versions: {available}.",
        facts={"source": "The project", "runtime": "a runtime", "wanted": "version", "available": "see /v1/runtimes"},
    ),
    "invalid_manifest": _Entry(
        _BUILD, "{file} cannot be used: {detail}.", "Correct {file} and build again.",
        facts={"file": "A manifest of the project", "detail": "it is not well formed"},
    ),  # fmt: skip
    "missing_script": _Entry(
        _BUILD,
        "There is no script `{script}`.",
        "Add `scripts.{script}` to package.json, or say what to do with `strategy.buildCommand` or, when there is "
        "nothing to build, `strategy.outputs`.",
        facts={"script": "build"},
    ),
    # --- Dependencies --------------------------------------------------------------------------------------------
    "dependency_not_found": _Entry(
        _BUILD,
        "The registry does not have {package}.",
        "Check the name and the version range; a private package needs a registry that has it.",
        facts={"package": "a dependency in the wanted version"},
    ),
    "dependency_conflict": _Entry(
        _BUILD,
        "The dependencies contradict each other.",
        "Choose versions that fit together; the evidence names who wants what.",
    ),
    "lockfile_out_of_sync": _Entry(
        _BUILD,
        "The lockfile is missing or does not match the manifest.",
        "Run the package manager's install locally and send the new lockfile along, or leave the lockfile out.",
    ),
    "registry_unavailable": _Entry(
        # The log alone tells of this, and the log is the build's own: it must not make us try again by ourselves.
        _BUILD,
        "The package manager could not fetch from its registry.",
        "Retry the build; if it stays, check the registry that the project's configuration names.",
        True,
    ),
    "install_failed": _Entry(
        _BUILD,
        "The installation {ending}.",
        "The evidence shows what failed. Run `{command}` locally to see the same.",
        facts={"ending": "failed", "command": "the installation command"},
    ),
    # --- The code ------------------------------------------------------------------------------------------------
    "type_error": _Entry(
        _BUILD, "TypeScript refuses the code{at}.", "Correct the types that the evidence names.", facts={"at": ""}
    ),
    "module_not_found": _Entry(
        _BUILD,
        "{module} cannot be found{at}.",
        "Add the package to the dependencies, or correct the path: upper and lower case matter.",
        facts={"module": "A module that is imported", "at": ""},
    ),
    "syntax_error": _Entry(
        _BUILD, "The code cannot be parsed{at}.", "Correct the syntax where the evidence points.", facts={"at": ""}
    ),
    "command_not_found": _Entry(
        _BUILD,
        "The command `{command}` does not exist in the build.",
        "Add the package that brings it to the dependencies, or correct the name.",
        facts={"command": "that was called"},
    ),
    "build_failed": _Entry(
        _BUILD,
        "The build command {ending}.",
        "The evidence shows the last errors; the log has the rest.",
        facts={"ending": "failed"},
    ),
    "no_output": _Entry(
        _BUILD,
        "The build succeeded but left no files where outputs were looked for.",
        "Name the folder that the build writes in `strategy.outputs`.",
    ),
}


def verdict(
    code: str, *, phase: str, evidence: Iterable[str] = (), exit_code: int | None = None, **facts: object
) -> Verdict:
    """The verdict for a code of the catalogue. Raises KeyError for a code that it does not have.

    `facts` fill the texts: `limit` is a plain number in seconds, bytes or pieces; those without a value are left out.
    """
    entry = CATALOGUE[code]
    known = {"limit": "", "phase": phase or "build", **entry.facts}
    known |= {name: str(value) for name, value in facts.items() if value is not None and name != "limit"}
    limit = facts.get("limit")
    if isinstance(limit, int | float):
        known["limit"] = entry.limit_as(limit)
    return Verdict(
        cls=entry.cls,
        code=code,
        phase=str(phase),
        message=_sentence(entry.message.format_map(known)),
        evidence=tuple(_cut(line) for line in evidence)[:MAX_EVIDENCE_LINES],
        hint=_sentence(entry.hint.format_map(known)),
        retryable=entry.retryable,
        exit_code=exit_code,
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


# CSI, OSC and the like, other escapes, and what is left of the control characters.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def _cut(line: str) -> str:
    """A line without escape sequences and within bounds, whatever came."""
    text = _ESCAPES.sub("", line[: 10 * MAX_LINE_CHARS]).rstrip()
    return text if len(text) <= MAX_LINE_CHARS else text[: MAX_LINE_CHARS - 1] + "…"


@dataclass
class _Sighting:
    """One line that shows a symptom, the lines that belong to it, and how many of those are still to come."""

    lines: list[str]
    facts: dict[str, str]
    to_come: int


class EvidenceCollector:
    """Reads the lines of one command as they come, and says in the end what went wrong.

    Memory is bounded: the last 40 lines, the first 20 that look like errors, and the first 10 sightings of each code.
    Lines must already be free of secrets: some of them become the verdict's evidence.
    """

    def __init__(self) -> None:
        self._last: deque[str] = deque(maxlen=40)
        self._errors: list[str] = []
        self._sightings: dict[str, list[_Sighting]] = {}
        self._open: list[_Sighting] = []

    def feed(self, line: str, stream: str = "stdout") -> None:
        """Take one line of either stream, with or without its line end. Chef's own lines are no evidence."""
        text = _cut(line)
        if not text.strip() or stream == "system":
            return
        self._continue(text)
        for sign in signs(text):
            self._note(sign, text)
        if len(self._errors) < 20 and is_error_like(text):
            self._errors.append(text)
        self._last.append(text)

    def finish(self) -> None:
        """No more output is to come."""
        self._open.clear()

    def judge(
        self,
        *,
        phase: str,
        exit_code: int | None,
        oom_killed: bool = False,
        timed_out: bool = False,
        process_limit_hit: bool = False,
        disk_limit_hit: bool = False,
        blocked_hosts: Sequence[str] = (),
        timeout_seconds: float | None = None,
        memory_bytes: int | None = None,
        pids: int | None = None,
        disk_bytes: int | None = None,
    ) -> Verdict:
        """The verdict on a command that failed. What the sandbox measured outweighs what the log says."""
        self.finish()
        limits = {
            "timeout": timeout_seconds,
            "out_of_memory": memory_bytes,
            "process_limit": pids,
            "disk_limit": disk_bytes,
        }
        measured = {
            "timeout": timed_out,
            "out_of_memory": oom_killed,
            "process_limit": process_limit_hit,
            "disk_limit": disk_limit_hit,
        }
        for code, hit in measured.items():
            if hit:
                evidence = self._lines_of(code) or list(self._last)[-5:]
                return verdict(code, phase=phase, evidence=evidence, exit_code=exit_code, limit=limits[code])
        return (
            self._blocked(phase, exit_code, blocked_hosts)
            or self._recognised(phase, exit_code, limits)
            or self._unrecognised(phase, exit_code)
        )

    # --- Taking lines --------------------------------------------------------------------------------------------

    def _continue(self, text: str) -> None:
        for sighting in self._open:
            sighting.lines.append(text)
            sighting.to_come -= 1
        self._open = [sighting for sighting in self._open if sighting.to_come > 0]

    def _note(self, sign: Sign, text: str) -> None:
        known = self._sightings.setdefault(sign.symptom.code, [])
        if len(known) >= MAX_EVIDENCE_LINES or any(text == each.lines[0] for each in known):
            return
        before = list(self._last)[-sign.symptom.before :] if sign.symptom.before else []
        sighting = _Sighting([text, *before], sign.facts, sign.symptom.after)
        known.append(sighting)
        if sighting.to_come:
            self._open.append(sighting)

    # --- Judging -------------------------------------------------------------------------------------------------

    def _blocked(self, phase: str, exit_code: int | None, blocked_hosts: Sequence[str]) -> Verdict | None:
        """A refused host ended an installation when the output names it, or when something could not be fetched."""
        if phase != "installation" or not blocked_hosts:
            return None
        named = [line for line in (*self._errors, *self._last) if any(host in line for host in blocked_hosts)]
        failed = self._lines_of(FETCH_FAILED) + self._lines_of(NETWORK_ERROR)
        # pip says of an index that it cannot reach only that the index has no versions.
        empty_index = [line for line in self._lines_of("dependency_not_found") if "(from versions: none)" in line]
        evidence = list(dict.fromkeys((*named, *failed, *empty_index)))
        if not evidence:
            return None
        host = next((host for host in blocked_hosts if any(host in line for line in named)), blocked_hosts[0])
        return verdict("egress_blocked", phase=phase, evidence=evidence, exit_code=exit_code, host=host)

    def _recognised(self, phase: str, exit_code: int | None, limits: Mapping[str, float | None]) -> Verdict | None:
        code = self._code_seen(exit_code)
        if not code:
            return None
        final, facts = code, self._facts_of(code)
        if code in {FETCH_FAILED, NETWORK_ERROR}:
            # In the sealed phase there is no network, and a program that resolves names itself goes past the proxy.
            direct = phase == "build" or code == NETWORK_ERROR
            final = "egress_blocked" if direct else "registry_unavailable"
        evidence = self._lines_of(code)
        return verdict(final, phase=phase, evidence=evidence, exit_code=exit_code, limit=limits.get(final), **facts)

    def _code_seen(self, exit_code: int | None) -> str | None:
        # A shell's 127 settles it; otherwise a script may have tried a command and gone on without it.
        first = ("command_not_found",) if exit_code == 127 else ()
        return next((code for code in (*first, *PRECEDENCE) if code in self._sightings), None)

    def _unrecognised(self, phase: str, exit_code: int | None) -> Verdict:
        code = "install_failed" if phase == "installation" else "build_failed"
        last = [line for line in self._last if is_error_like(line)] or list(self._last)
        evidence = list(dict.fromkeys((*self._errors[:5], *last[-5:])))
        return verdict(code, phase=phase, evidence=evidence, exit_code=exit_code, ending=_ending(exit_code))

    def _lines_of(self, code: str) -> list[str]:
        """The lines that show a code, those that name something first."""
        known = sorted(self._sightings.get(code, ()), key=lambda sighting: not sighting.facts)
        return list(dict.fromkeys(line for sighting in known for line in sighting.lines))

    def _facts_of(self, code: str) -> dict[str, str]:
        """Each fact from the first line that tells it, and `at`, the place in the code."""
        facts: dict[str, str] = {}
        for sighting in self._sightings[code]:
            facts = sighting.facts | facts
        first = next((each.facts for each in self._sightings[code] if "file" in each.facts), None)
        if first:
            facts["at"] = f" in {first['file']}" + (f", line {first['line']}" if "line" in first else "")
        return facts


def _ending(exit_code: int | None) -> str:
    """How a command ended, as the end of a sentence. A shell reports a signal as 128 and its number."""
    if exit_code is None:
        return "failed"
    if 128 < exit_code <= 128 + signal.NSIG - 1:
        try:
            return f"ended with exit code {exit_code}, as if killed by {signal.Signals(exit_code - 128).name}"
        except ValueError:
            pass
    return f"failed with exit code {exit_code}"
