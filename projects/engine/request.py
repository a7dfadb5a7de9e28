"""What a user asks of the engine."""

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

# What the engine writes apps for; an installation may build more.
Runtime = Literal["node", "python", "static"]
WRITTEN_RUNTIMES: tuple[str, ...] = get_args(Runtime)


class Request(BaseModel):
    """A prompt and the strategy request with it. `analysis` and `tests` switch the first and the last stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    name: str = ""
    runtime: Runtime | None = None
    version: str | None = None
    analysis: bool = True
    tests: bool = True

    def strategy_text(self) -> str:
        """The strategy request in the form the model reads."""
        return (
            f"name: {self.name or 'choose one'}\nruntime: {self.runtime or 'choose what fits best'}\n"
            f"version of the runtime: {self.version or 'the current one'}"
        )
