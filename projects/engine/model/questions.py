"""A question to the model: a stage's prompt, the data it is about, and the schema of the answer.

Data is never mixed into the prompt. Each part stands between two marks that the part itself cannot contain, because the
mark is a digest of all parts; the prompt says that nothing between marks is an instruction. Whatever a part makes the
model do, the answer can only be the question's document, and that is validated.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from projects.engine.errors import InvalidAnswerError, one_line

PROMPTS = Path(__file__).resolve().parent / "prompts"
# How much of an invalid answer is sent back to the model: repeating all of it does not help.
MAX_ANSWER_RETURNED = 20_000
MAX_REASONS = 10


class Stage(StrEnum):
    INTENT = "intent"
    PLAN = "plan"
    CODE = "code"
    TESTS = "tests"
    EDIT = "edit"
    REPAIR = "repair"


class Document(BaseModel):
    """A document that a model writes. Strict schemas allow no defaults: an optional field is None or an empty list."""

    model_config = ConfigDict(extra="forbid", frozen=True)


A = TypeVar("A", bound=Document)


@dataclass(frozen=True)
class Part:
    """Data with a title. `shorter` replaces it when the whole is too long for the model; None: it must stay."""

    title: str
    text: str
    shorter: str | None = None


def _nothing_wrong(answer: Any) -> list[str]:
    return []


@dataclass(frozen=True)
class Question(Generic[A]):
    """`faults` finds errors in an answer that matches the schema. `subject` is the file that it is about, if any.

    `correction` is an earlier answer that was invalid, and why.
    """

    stage: Stage
    answer: type[A]
    parts: tuple[Part, ...]
    subject: str = ""
    faults: Callable[[A], Sequence[str]] = _nothing_wrong
    max_chars: int = 400_000
    correction: tuple[str, str] | None = None

    def messages(self) -> list[dict[str, str]]:
        """The messages of the request, the stage's prompt first."""
        messages = [
            {"role": "system", "content": f"{prompt(self.stage)}\n{prompt('rules')}"},
            {"role": "user", "content": delimited(self.parts)},
        ]
        if self.correction:
            answer, reason = self.correction
            messages.append({"role": "assistant", "content": answer[:MAX_ANSWER_RETURNED] or "(nothing)"})
            messages.append({"role": "user", "content": f"{prompt('correction')}\n{reason}"})
        return messages

    def read(self, text: str) -> A:
        """The document in an answer's text. Raises InvalidAnswerError with all of its errors."""
        start, end = text.find("{"), text.rfind("}")
        if start < 0 or end < start:
            raise InvalidAnswerError("answer_not_json", "There is no JSON object in the answer.", subject=self.subject)
        try:
            document = self.answer.model_validate_json(text[start : end + 1])
        except ValidationError as error:
            code = "answer_not_json" if error.errors()[0]["type"] == "json_invalid" else "answer_wrong_shape"
            raise InvalidAnswerError(code, _reasons(error), subject=self.subject) from error
        if any("\0" in text for text in _texts(document.model_dump())):
            raise InvalidAnswerError("answer_invalid", "A text contains a NUL character.", subject=self.subject)
        if faults := self.faults(document):
            raise InvalidAnswerError("answer_invalid", " ".join(faults[:MAX_REASONS]), subject=self.subject)
        return document

    @property
    def can_shorten(self) -> bool:
        return any(part.shorter is not None for part in self.parts)

    def shortened(self) -> "Question[A]":
        """The same question with shorter input."""
        texts = [part.text if part.shorter is None else part.shorter for part in self.parts]
        parts = [Part(part.title, text) for part, text in zip(self.parts, texts, strict=True) if text]
        return replace(self, parts=tuple(parts))

    def corrected(self, answer: str, reason: str) -> "Question[A]":
        """The same question, after an invalid answer."""
        return replace(self, correction=(answer, reason))


@cache
def prompt(name: str) -> str:
    return (PROMPTS / f"{name}.txt").read_text(encoding="utf-8")


def delimited(parts: Sequence[Part]) -> str:
    """The parts between marks that none of them contains."""
    digest = hashlib.sha256("\0".join(f"{part.title}\0{part.text}" for part in parts).encode(errors="replace"))
    mark = digest.hexdigest()[:16]
    blocks = [f"<<<{mark} {one_line(part.title)}>>>\n{part.text}\n<<<{mark} end>>>" for part in parts]
    return "\n\n".join(blocks)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a document, without its keys: those are fixed."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _reasons(error: ValidationError) -> str:
    """Pydantic's errors as sentences, without the values, which can be long."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    places = [(".".join(str(step) for step in each["loc"]) or "the answer", each["msg"]) for each in found]
    return " ".join(f"{place}: {message}." for place, message in places[:MAX_REASONS])
