"""After a failed build: whether to repair and build again, and which revision is the best so far. Pure decisions.

Each further try costs tokens and a build, so it must have a chance: the failure lies in the code, it is a new one, and
the last repair improved something.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from projects.engine.repairs.fingerprints import Failure, distinct_errors, fingerprint

MAX_REPAIRS = 3
# A repair reads the files and writes a patch: less than this is not enough for both.
LEAST_TOKENS = 4_000
_PHASES = ("preparation", "installation", "build", "artifacts", "cleanup")


class Ending(StrEnum):
    """Why there is no further try."""

    NOT_NEEDED = "not_needed"  # the first build completed
    FIXED = "fixed"
    NOT_OURS = "not_ours"  # the failure does not depend on the code
    SEEN_BEFORE = "seen_before"  # the same failure again: repairs are going in circles
    NO_FEWER_ERRORS = "no_fewer_errors"
    THREE_TRIES = "three_tries"
    BUDGET = "budget"
    NO_REPAIR = "no_repair"  # the repair itself failed, for reasons outside the code
    NO_MODEL = "no_model"
    SUPERSEDED = "superseded"  # the project got another revision meanwhile


# For people; empty where there is nothing to say.
MEANING: Mapping[Ending, str] = {
    Ending.NOT_NEEDED: "",
    Ending.FIXED: "The last repair fixed the build.",
    Ending.NOT_OURS: "The last build failed for a reason that no change to the files can fix.",
    Ending.SEEN_BEFORE: "The same failure came back, so repairs stopped.",
    Ending.NO_FEWER_ERRORS: "The last repair did not reduce the errors, so repairs stopped.",
    Ending.THREE_TRIES: "Three repairs did not fix the build.",
    Ending.BUDGET: "The token limit for repairs is reached.",
    Ending.NO_REPAIR: "A further repair could not be made.",
    Ending.NO_MODEL: "Repairs need a language model, and none is configured.",
    Ending.SUPERSEDED: "The project changed in the meantime, so repairs stopped.",
}


@dataclass(frozen=True)
class Built:
    """One revision and the result of its build; `failure` is None when it completed."""

    revision: int
    failure: Failure | None


@dataclass(frozen=True)
class Decision:
    """`ending` is None when there is to be another try. `best` is the revision with the fewest errors."""

    ending: Ending | None
    best: int

    @property
    def try_again(self) -> bool:
        return self.ending is None


def decide(history: Sequence[Built], *, tokens_left: int | None = None, failed_repairs: int = 0) -> Decision:
    """What to do after the last build of a history: the generated revision first, then each repaired one.

    `tokens_left=None` means no limit; `failed_repairs` is how many repairs ended without a revision. Raises
    ValueError for an empty history.
    """
    if not history:
        raise ValueError("There is nothing to decide before the first build.")
    best = min(history, key=_badness)  # among equals, the one that was changed least
    return Decision(_ending(history, tokens_left, failed_repairs), best.revision)


def _ending(history: Sequence[Built], tokens_left: int | None, failed_repairs: int) -> Ending | None:
    last, earlier = history[-1], [built for built in history[:-1] if not _says_nothing(built)]
    if last.failure is None:
        return Ending.FIXED if len(history) > 1 else Ending.NOT_NEEDED
    if _says_nothing(last):
        return Ending.NOT_OURS
    if earlier:
        best = min(earlier, key=_badness)
        seen = {fingerprint(built.failure) for built in earlier if built.failure}
        # The first error may still be there: it counts as progress when others are gone.
        if fingerprint(last.failure) in seen and _badness(last) >= _badness(best):
            return Ending.SEEN_BEFORE
        if not _is_better(last, best):
            return Ending.NO_FEWER_ERRORS
    if len(history) + failed_repairs > MAX_REPAIRS:
        return Ending.THREE_TRIES
    if tokens_left is not None and tokens_left < LEAST_TOKENS:
        return Ending.BUDGET
    return None


def _says_nothing(built: Built) -> bool:
    """Whether the build failed for reasons outside the code: only the class `build` is about the code."""
    failure = built.failure
    return failure is not None and (failure.cls != "build" or failure.retryable)


def _badness(built: Built) -> tuple[bool, int, int]:
    """Completed before failed, a later phase before an earlier one, fewer distinct errors before more."""
    if built.failure is None:
        return False, 0, 0
    if _says_nothing(built):
        return True, 1, 0
    phase = _PHASES.index(built.failure.phase) if built.failure.phase in _PHASES else 0
    return True, -phase, len(distinct_errors(built.failure))


def _is_better(last: Built, best: Built) -> bool:
    """Whether the last repair made progress.

    A tool that stops at its first error shows one at a time: a different single error is then the next one.
    """
    now, before = _badness(last), _badness(best)
    return now < before or (now == before and now[2] == 1)
