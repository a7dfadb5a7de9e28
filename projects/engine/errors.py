"""The catalogue of the engine's errors: whose fault each is, what happened, and what to do next.

Codes are stable: they are stored and shown by the API. The texts are written for the person who sent the prompt; what a
language model or its endpoint said comes only as `detail`, cut to one line.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MAX_DETAIL_CHARS = 400


class Whose(StrEnum):
    """Whose fault it is, and so who can mend it."""

    ENDPOINT = "endpoint"  # the model's endpoint: the operator, or time
    INSTALLATION = "installation"  # what runs the engine: the operator, or time
    MODEL = "model"  # what the model answered: another try, or another prompt
    REQUEST = "request"  # the prompt or the files: the user
    LIMIT = "limit"  # a limit that the user or the operator has set
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Entry:
    """`transient`: the same call may well succeed in a moment, so the engine makes it again by itself."""

    whose: Whose
    message: str
    hint: str
    transient: bool = False


_OPERATOR = "The operator checks AI_BASE_URL, AI_MODEL and AI_API_KEY."
_LATER = "Retry the generation: what is done stays done. If it happens again, tell the operator."
_REPHRASE = "Generate again, or say more plainly what the app shall do; a smaller app is easier."
_ENDPOINT, _MODEL, _LIMIT = Whose.ENDPOINT, Whose.MODEL, Whose.LIMIT

CATALOGUE: Mapping[str, Entry] = {
    # --- The endpoint ----------------------------------------------------------------------------------------------
    "endpoint_unreachable": Entry(_ENDPOINT, "The model's endpoint could not be reached.", _LATER, True),
    "endpoint_silent": Entry(_ENDPOINT, "The model's endpoint has fallen silent.", _LATER, True),
    "endpoint_timeout": Entry(_ENDPOINT, "The model took too long over an answer.", _LATER),
    "endpoint_failed": Entry(_ENDPOINT, "The model's endpoint failed.", _LATER, True),
    "rate_limited": Entry(_ENDPOINT, "The model's endpoint allows no more requests for now.", _LATER, True),
    "stream_cut": Entry(_ENDPOINT, "The model's answer broke off.", _LATER, True),
    "quota_exhausted": Entry(
        _ENDPOINT,
        "The account at the model's endpoint has nothing left.",
        "The operator tops it up; then retry the generation.",
    ),
    "endpoint_unauthorized": Entry(_ENDPOINT, "The model's endpoint does not accept the key.", _OPERATOR),
    "model_unknown": Entry(_ENDPOINT, "The model's endpoint does not have this model or address.", _OPERATOR),
    "request_refused": Entry(_ENDPOINT, "The model's endpoint refused the request.", _OPERATOR),
    "not_an_endpoint": Entry(
        _ENDPOINT, "What answers at the model's address does not speak the chat completions API.", _OPERATOR
    ),
    # --- The model ---------------------------------------------------------------------------------------------------
    "answer_not_json": Entry(
        _MODEL, "The model answered with something else than the JSON it was asked for.", _REPHRASE
    ),
    "answer_wrong_shape": Entry(_MODEL, "The model's JSON has another shape than it was asked for.", _REPHRASE),
    "answer_cut_off": Entry(_MODEL, "The model's answer is longer than it may be at once.", _REPHRASE),
    "answer_too_large": Entry(_MODEL, "The model wrote without end and was stopped.", _REPHRASE),
    "answer_invalid": Entry(_MODEL, "The model's answer cannot be used.", _REPHRASE),
    "model_refused": Entry(
        _MODEL, "The model declined to answer.", "Say in the prompt what the app is for, and leave out what may offend."
    ),
    "invalid_plan": Entry(_MODEL, "The model's plan of the app cannot be used.", _REPHRASE),
    "file_failed": Entry(_MODEL, "A file that the app needs could not be written.", _LATER),
    "patch_failed": Entry(
        _MODEL,
        "The model's changes do not fit the files.",
        "Try again, or name the files and places that shall change.",
    ),
    # --- Limits and requests -----------------------------------------------------------------------------------------
    "context_too_long": Entry(
        Whose.REQUEST,
        "The prompt and the files together are longer than the model can read.",
        "Shorten the prompt, or leave large files out of the project; the operator may choose a larger model.",
    ),
    "files_refused": Entry(
        _LIMIT, "The app would not be within the limits for files.", "Ask for a smaller app, or raise the limits."
    ),
    "budget_reached": Entry(
        _LIMIT, "The generation has used the tokens it may use.", "Raise `config.maxTokens`, or ask for a smaller app."
    ),
    "no_model": Entry(
        Whose.REQUEST,
        "This needs a language model, and the installation has none.",
        "Send the files as a revision, or have the operator set AI_API_KEY.",
    ),
    "day_spent": Entry(
        _LIMIT, "All tokens of the owner's day are used.", "Retry it tomorrow (UTC), or ask the operator for more."
    ),
    "project_changed": Entry(
        Whose.REQUEST,
        "The project got another revision while this one was written.",
        "Send the prompt again: it is then applied to the newer files.",
    ),
    "attempts_exhausted": Entry(
        Whose.INSTALLATION,
        "Faults of the installation ended every attempt.",
        "Retry it; if it happens again, tell the operator.",
    ),
    "cancelled": Entry(Whose.CANCELLED, "The generation was cancelled.", "Send the prompt again, or retry it."),
}


class EngineError(Exception):
    """Something of the catalogue has happened. Raises KeyError for a code that it does not have.

    `detail` says what exactly, `subject` of which file. `retry_after` is in seconds, where the endpoint named a time.
    """

    def __init__(self, code: str, detail: str = "", *, subject: str = "", retry_after: float | None = None) -> None:
        self.entry = CATALOGUE[code]
        self.code = code
        self.detail = one_line(detail)
        self.subject = subject
        self.retry_after = retry_after
        about = f" ({subject})" if subject else ""
        super().__init__(f"{self.entry.message}{about}" + (f" {self.detail}" if self.detail else ""))

    def as_json(self) -> dict[str, Any]:
        """The error as the API gives it."""
        return {
            "code": self.code,
            "whose": self.entry.whose.value,
            "message": self.entry.message,
            "detail": self.detail,
            "subject": self.subject,
            "hint": self.entry.hint,
        }


class BadAnswer(EngineError):
    """The model has answered, but not with what was asked for. `detail` goes back to the model, once."""


class Cancelled(EngineError):
    """Whoever asked for the generation wants it no more."""

    def __init__(self, detail: str = "") -> None:
        super().__init__("cancelled", detail)


def one_line(text: str) -> str:
    """One line within bounds, for people and every database: without control characters and halves of characters."""
    line = re.sub(r"[\x00-\x20\x7f-\x9f]+", " ", text[: 4 * MAX_DETAIL_CHARS]).strip()
    line = line.encode(errors="replace").decode()
    return line if len(line) <= MAX_DETAIL_CHARS else line[: MAX_DETAIL_CHARS - 1] + "…"
