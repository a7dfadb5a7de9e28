"""Patterns of what failing tools print, and the verdict code of each.

This module matches single lines; `evidence` decides what they mean together. It holds the patterns of the shell, the
system and general tools; each runtime has those of its own tools.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

# Two codes that are not verdicts yet. Only the egress record shows whether a download failed because of our policy or
# the registry; a name that cannot be resolved counts only if nothing better explains the failure.
FETCH_FAILED = "fetch_failed"
NETWORK_ERROR = "network_error"

# If a log shows several codes, the first of these is the verdict. Limits come first, because a tool that runs out of
# a resource reports all kinds of follow-up errors.
PRECEDENCE: tuple[str, ...] = (
    "process_limit",
    "out_of_memory",
    "disk_limit",
    "lockfile_out_of_sync",
    "invalid_manifest",
    "dependency_conflict",
    FETCH_FAILED,
    "dependency_not_found",
    "missing_script",
    "egress_blocked",
    "type_error",
    "module_not_found",
    "syntax_error",
    "command_not_found",
    NETWORK_ERROR,
)


@dataclass(frozen=True)
class Symptom:
    """One kind of line. Named groups are the verdict's facts; `before` and `after` count the lines that belong to it.

    `constants` are facts that the line does not contain. `hides_block`: the tool prints the same line when its registry
    cannot be reached.
    """

    code: str
    pattern: re.Pattern[str]
    before: int = 0
    after: int = 0
    constants: Mapping[str, str] = field(default_factory=dict, hash=False)
    hides_block: bool = False


@dataclass(frozen=True)
class Sign:
    """A symptom that was found, with the facts from its line."""

    symptom: Symptom
    facts: dict[str, str]


def symptoms(
    code: str,
    *patterns: str,
    before: int = 0,
    after: int = 0,
    constants: Mapping[str, str] | None = None,
    hides_block: bool = False,
) -> tuple[Symptom, ...]:
    """One symptom of a code of PRECEDENCE for each pattern; patterns ignore case."""
    assert code in PRECEDENCE, code
    return tuple(
        Symptom(code, re.compile(pattern, re.IGNORECASE), before, after, constants or {}, hides_block)
        for pattern in patterns
    )


@dataclass(frozen=True)
class Patterns:
    """What a set of tools prints when they fail. Sets are combined with `+`.

    `words`: every line that shows a symptom contains one of these, in lower case, which makes ordinary lines a hundred
    times cheaper to skip. `boilerplate` are regular expressions for lines that follow any failed command and say
    nothing of the cause; `places` are regular expressions, with the groups `file` and `line`, for an error's place in
    the code.
    """

    symptoms: tuple[Symptom, ...] = ()
    words: tuple[str, ...] = ()
    boilerplate: tuple[str, ...] = ()
    places: tuple[str, ...] = ()

    def __add__(self, other: "Patterns") -> "Patterns":
        return Patterns(
            (*self.symptoms, *other.symptoms),
            (*self.words, *other.words),
            (*self.boilerplate, *other.boilerplate),
            (*self.places, *other.places),
        )

    def is_suspect(self, line: str) -> bool:
        """Whether a line may show a symptom."""
        return bool(self._word.search(line.lower()))

    def signs(self, line: str) -> Iterator[Sign]:
        """Every symptom that a suspect line shows. The line must have gone through `evidence.clean`."""
        for symptom in self.symptoms:
            match = symptom.pattern.search(line)
            if match:
                yield Sign(symptom, {name: _shown(value) for name, value in match.groupdict().items() if value})

    def place(self, line: str) -> dict[str, str]:
        """The `file` and `line` of the code that a line points to; empty if it points to none."""
        found = [match for pattern in self._places if (match := pattern.search(line))]
        if not found:
            return {}
        first = min(found, key=lambda match: match.start())
        return {"file": _shown(first["file"]), "line": first["line"]}

    def is_error_like(self, line: str) -> bool:
        """Whether a line of an unknown tool seems to report the cause of a failure."""
        return bool(_ERROR_LIKE.search(line)) and not self.is_boilerplate(line)

    def is_boilerplate(self, line: str) -> bool:
        """Whether a line follows any failed command and says nothing of the cause."""
        return bool(self._boilerplate.search(line))

    @cached_property
    def _word(self) -> re.Pattern[str]:
        return re.compile("|".join(re.escape(word) for word in dict.fromkeys(self.words)))

    @cached_property
    def _boilerplate(self) -> re.Pattern[str]:
        return re.compile("|".join(self.boilerplate), re.IGNORECASE)

    @cached_property
    def _places(self) -> tuple[re.Pattern[str], ...]:
        return tuple(re.compile(place, re.IGNORECASE) for place in self.places)


COMMON = Patterns(
    symptoms=(
        *symptoms(
            "process_limit",
            r"fork: (?:retry: )?Resource temporarily unavailable",
            r": cannot fork$",
            r"pthread_create\b.*Resource temporarily unavailable",
            r"failed to (?:create new OS|spawn) thread",
        ),
        *symptoms("out_of_memory", r"std::bad_alloc", r"ENOMEM|Cannot allocate memory"),
        *symptoms(
            "disk_limit",
            # Running out of file watchers is ENOSPC too.
            r"ENOSPC(?!.*file watchers)",
            r"No space left on device|Disk quota exceeded",
            r"EDQUOT",
        ),
        *symptoms(FETCH_FAILED, r"CONNECT tunnel failed"),
        *symptoms(
            "command_not_found",
            r"^(?:/bin/)?(?:ba|da|a)?sh: (?:(?:line )?\d+: )?(?P<command>[^\s:]+): (?:command )?not found$",
            r"^command not found: (?P<command>\S+)$",
            r"exec: \"(?P<command>[^\"]+)\": executable file not found",
        ),
        *symptoms(
            NETWORK_ERROR,
            r"Could not resolve host: (?P<host>\S+)",
            r"Temporary failure in name resolution|Name or service not known",
            r"Network is unreachable|ENETUNREACH",
        ),
    ),
    words=(
        *("err", "fail", "can't", "cannot", "could", "missing", "unavailable", "memory", "nomem", "alloc", "nospc"),
        *("quota", "thread", "invalid", "tunnel", "proxy", "unable", "unreach", "exception", "fatal", "not found"),
        *("not known", "space left", "resolution"),
    ),
    boilerplate=(r"Build failed (?:with|in) \d", "Command failed"),
    # `file:line` and `file line:column`, as most tools print them.
    places=(r"(?:^|[\s\[])(?:file://)?(?P<file>[\w./@~-]+\.[a-z]{1,6})[: ](?P<line>\d+)\b",),
)

_ERROR_LIKE = re.compile(
    r"\berror\b|error:|\bfailed\b|\bfatal\b|exception|traceback|\bERR!|not exported by", re.IGNORECASE
)
# The project's folder in every sandbox. Users know their files by the path within the project.
_PROJECT_FOLDER = re.compile(r"^(?:file://)?/workspace/app/")


def _shown(fact: str) -> str:
    return _PROJECT_FOLDER.sub("", fact)
