"""Tokens: how many a generation may use, how many it has used, and what they cost.

What the endpoint reports is counted exactly, failed tries included. Where it reports nothing, an estimate is used and
marked as such. Several threads share one budget.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from pydantic import BaseModel, ConfigDict

from projects.engine.errors import EngineError, GenerationCancelledError

MILLION = Decimal(1_000_000)
# No stage can use an answer with fewer tokens than this.
LEAST_OUTPUT = 500
# More than code usually takes: a budget may be left unused, but not overrun.
BYTES_PER_TOKEN = 3
_TICK = 0.2


@dataclass(frozen=True)
class Prices:
    """Per million tokens, in the operator's currency."""

    input: Decimal = Decimal(0)
    output: Decimal = Decimal(0)

    def cost(self, usage: "Usage") -> Decimal:
        return (usage.input * self.input + usage.output * self.output) / MILLION


class Usage(BaseModel):
    """Tokens that went in and came out. `estimated`: at least part of the numbers was not reported by the endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: int = 0
    output: int = 0
    estimated: bool = False

    @property
    def total(self) -> int:
        return self.input + self.output

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input=self.input + other.input,
            output=self.output + other.output,
            estimated=self.estimated or other.estimated,
        )


def estimate(text: str) -> int:
    """How many tokens a text may have."""
    return -(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN)


@dataclass(frozen=True)
class Allowance:
    """What one call may use: the answer's tokens, and everything reserved for it."""

    output: int
    reserved: int


class Budget:
    """The tokens of one generation. `most=None` means no limit; `used` is what was used before it was resumed."""

    def __init__(self, most: int | None = None, *, used: Usage | None = None) -> None:
        self.most = most
        self._used = used or Usage()
        self._reserved = 0
        self._settled = threading.Condition()

    @property
    def used(self) -> Usage:
        with self._settled:
            return self._used

    @property
    def left(self) -> int | None:
        return None if self.most is None else max(self.most - self.used.total, 0)

    def reserve(self, *, input: int, output: int, is_cancelled: Callable[[], bool]) -> Allowance:
        """Reserve tokens for one call: as much of `output` as is left.

        Waits while other calls hold what this one needs. Raises EngineError `budget_reached` when there would be too
        little even without them, and GenerationCancelledError.
        """
        with self._settled:
            while self.most is not None:
                free = self.most - self._used.total - self._reserved
                if free >= input + output or (not self._reserved and free >= input + LEAST_OUTPUT):
                    output = min(output, free - input)
                    break
                if is_cancelled():
                    raise GenerationCancelledError
                if not self._reserved:
                    raise EngineError("budget_reached", f"{self._used.total:,} of {self.most:,} tokens are used.")
                self._settled.wait(_TICK)
            self._reserved += input + output
            return Allowance(output, input + output)

    def settle(self, allowance: Allowance, usage: Usage) -> None:
        """The call is over; this is what it used."""
        with self._settled:
            self._reserved -= allowance.reserved
            self._used += usage
            self._settled.notify_all()
