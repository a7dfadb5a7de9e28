"""Verdicts: why a build did not complete, and how that is found in a failed command's output.

The codes and their texts are in `catalogue`, the patterns of tools' output in `patterns`. Knows neither the database
nor the sandbox.
"""

import signal
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builds.verdicts.catalogue import CATALOGUE, VerdictClass
from builds.verdicts.patterns import COMMON, FETCH_FAILED, NETWORK_ERROR, PRECEDENCE, Patterns, Sign, Symptom
from chef.text.ansi import printable

__all__ = ["CATALOGUE", "EvidenceCollector", "Verdict", "VerdictClass", "clean", "verdict"]

MAX_EVIDENCE_LINES = 10
MAX_LINE_CHARS = 400
# Matching a suspect line against all patterns takes a third of a millisecond, and a build may print them endlessly.
MAX_CLOSE_READINGS = 20_000


@dataclass(frozen=True)
class Verdict:
    """Why a build ended.

    `evidence` holds log lines, the most relevant first. `retryable`: the same build may succeed when it is retried
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
        """The verdict as the API shows it."""
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


def verdict(
    code: str, *, phase: str, evidence: Iterable[str] = (), exit_code: int | None = None, **facts: object
) -> Verdict:
    """The verdict for a code of the catalogue. Raises KeyError for an unknown code.

    `facts` fill in the texts: `limit` is a number of seconds, bytes or items; facts that are None are ignored.
    """
    entry = CATALOGUE[code]
    known = {"limit": "", "phase": phase or "build", **entry.facts}
    known |= {name: clean(str(value)) for name, value in facts.items() if value is not None and name != "limit"}
    limit = facts.get("limit")
    if isinstance(limit, int | float):
        known["limit"] = entry.limit_as(limit)
    return Verdict(
        cls=entry.cls,
        code=code,
        phase=str(phase),
        message=entry.message.format_map(known),
        evidence=tuple(clean(line) for line in evidence)[:MAX_EVIDENCE_LINES],
        hint=entry.hint.format_map(known),
        retryable=entry.retryable,
        exit_code=exit_code,
    )


def clean(text: str) -> str:
    """One line that any reader and database can take: of limited length, without escape sequences, control characters
    and invalid Unicode (lone surrogates)."""
    line = printable(text[: 10 * MAX_LINE_CHARS]).rstrip().encode(errors="replace").decode()
    return line if len(line) <= MAX_LINE_CHARS else line[: MAX_LINE_CHARS - 1] + "…"


@dataclass
class _Sighting:
    """One line that shows a symptom, the lines that belong to it, and how many more will follow."""

    symptom: Symptom
    lines: list[str]
    facts: dict[str, str]
    to_come: int

    def add(self, line: str, place: dict[str, str]) -> None:
        self.lines.append(line)
        if "file" not in self.facts:
            self.facts |= place


class EvidenceCollector:
    """Reads the lines of one command as they arrive, and finds what went wrong when it has failed.

    `patterns` describe the output of the command's tools.
    Memory is bounded: the last 40 lines, the first 20 that look like errors, and the first 10 sightings of each code.
    Lines must already be free of secrets: some of them become the verdict's evidence.
    """

    def __init__(self, patterns: Patterns = COMMON) -> None:
        self._patterns = patterns
        self._last: deque[str] = deque(maxlen=40)
        self._errors: list[str] = []
        self._sightings: dict[str, list[_Sighting]] = {}
        self._open: list[_Sighting] = []
        self._readings_left = MAX_CLOSE_READINGS

    def feed(self, line: str, stream: str = "stdout") -> None:
        """Read one line of a stream, with or without its line ending. Chef's own lines (`system`) are ignored."""
        text = clean(line)
        if not text.strip() or stream == "system":
            return
        self._continue(text)
        if self._last and text == self._last[-1]:
            return  # a repeated line adds nothing, and there may be millions of them
        if self._readings_left and self._patterns.is_suspect(text):
            self._readings_left -= 1
            self._read_closely(text)
        self._last.append(text)

    def finish(self) -> None:
        """Note that the output has ended."""
        if not self._readings_left:
            for text in list(self._last):  # the end of a flood is the most relevant part
                self._read_closely(text)
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
        """The verdict on a failed command. What the sandbox measured takes precedence over the log.

        Nothing measures the disk, so no caller passes `disk_limit_hit` and `disk_bytes`: a full disk shows in the log.
        """
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

    # --- Reading lines -------------------------------------------------------------------------------------------

    def _continue(self, text: str) -> None:
        for sighting in self._open:
            sighting.add(text, self._patterns.place(text))
            sighting.to_come -= 1
        self._open = [sighting for sighting in self._open if sighting.to_come > 0]

    def _read_closely(self, text: str) -> None:
        for sign in self._patterns.signs(text):
            self._note(sign, text)
        if len(self._errors) < 20 and self._patterns.is_error_like(text):
            self._errors.append(text)

    def _note(self, sign: Sign, text: str) -> None:
        known = self._sightings.setdefault(sign.symptom.code, [])
        same = next((each for each in known if each.lines[0] == text), None)
        if same:
            same.facts = sign.facts | same.facts
        if same or len(known) >= MAX_EVIDENCE_LINES:
            return
        sighting = _Sighting(sign.symptom, [text], sign.facts, sign.symptom.after)
        known.append(sighting)
        before = list(self._last)[-sign.symptom.before :] if sign.symptom.before else []
        for line in reversed(before):  # the place closest to the error wins
            sighting.add(line, self._patterns.place(line))
        sighting.lines[1:] = before
        if sighting.to_come:
            self._open.append(sighting)

    # --- Judging -------------------------------------------------------------------------------------------------

    def _blocked(self, phase: str, exit_code: int | None, blocked_hosts: Sequence[str]) -> Verdict | None:
        """A blocked host is the cause if the output of an installation names it, or shows a failed download."""
        if phase != "installation" or not blocked_hosts:
            return None
        named = [line for line in (*self._errors, *self._last) if any(host in line for host in blocked_hosts)]
        failed = self._lines_of(FETCH_FAILED) + self._lines_of(NETWORK_ERROR)
        hiding = [each.lines[0] for seen in self._sightings.values() for each in seen if each.symptom.hides_block]
        evidence = list(dict.fromkeys((*named, *failed, *hiding)))
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
            # The build phase has no network, and a program that resolves names itself is not using the proxy.
            direct = phase == "build" or code == NETWORK_ERROR
            final = "egress_blocked" if direct else "registry_unavailable"
        evidence = self._lines_of(code)
        return verdict(final, phase=phase, evidence=evidence, exit_code=exit_code, limit=limits.get(final), **facts)

    def _code_seen(self, exit_code: int | None) -> str | None:
        # A shell's 127 is proof; otherwise a script may have tried a missing command and continued without it.
        first = ("command_not_found",) if exit_code == 127 else ()
        return next((code for code in (*first, *PRECEDENCE) if code in self._sightings), None)

    def _unrecognised(self, phase: str, exit_code: int | None) -> Verdict:
        code = "install_failed" if phase == "installation" else "build_failed"
        last = [line for line in self._last if not self._patterns.is_boilerplate(line)] or list(self._last)
        evidence = list(dict.fromkeys((*self._errors[:5], *last[-5:])))
        return verdict(code, phase=phase, evidence=evidence, exit_code=exit_code, ending=_ending(exit_code))

    def _lines_of(self, code: str) -> list[str]:
        """The lines that show a code, those with facts first."""
        known = sorted(self._sightings.get(code, ()), key=lambda sighting: not sighting.facts)
        return list(dict.fromkeys(line for sighting in known for line in sighting.lines))

    def _facts_of(self, code: str) -> dict[str, str]:
        """Each fact from the first line that has it, and `at`, the place in the code."""
        facts: dict[str, str] = {}
        for sighting in self._sightings[code]:
            facts = {**sighting.symptom.constants, **sighting.facts} | facts
        first = next((each.facts for each in self._sightings[code] if "file" in each.facts), None)
        if first:
            facts["at"] = f" in {first['file']}" + (f", line {first['line']}" if "line" in first else "")
        return facts


def _ending(exit_code: int | None) -> str:
    """How a command ended, as the end of a sentence. A shell reports a signal as 128 plus its number."""
    if exit_code is None:
        return "failed"
    if 128 < exit_code <= 128 + signal.NSIG - 1:
        try:
            return f"ended with exit code {exit_code}, as after {signal.Signals(exit_code - 128).name}"
        except ValueError:
            pass
    return f"failed with exit code {exit_code}"
