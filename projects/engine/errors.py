"""The catalogue of the engine's errors: who caused each, what happened, and what to do next.

Codes are stable: they are stored, and the API shows them. The texts are for the person who sent the prompt. What a
language model or its endpoint said appears only in `detail`, cut to one line.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MAX_DETAIL_CHARS = 400


class Whose(StrEnum):
    """Who caused the error, and so who can fix it."""

    ENDPOINT = "endpoint"  # the model's endpoint: the operator, or time
    INSTALLATION = "installation"  # what runs the engine: the operator, or time
    MODEL = "model"  # what the model answered: another try, or another prompt
    REQUEST = "request"  # the prompt or the files: the user
    LIMIT = "limit"  # a limit that the user or the operator has set
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Entry:
    """`transient`: the same call may succeed shortly, so the engine retries it by itself."""

    whose: Whose
    message: str
    hint: str
    transient: bool = False


_OPERATOR = "The operator checks AI_BASE_URL, AI_MODEL and AI_API_KEY."
_LATER = "Retry the generation: it continues where it stopped. If it fails again, contact the operator."
_REPHRASE = "Generate again, or describe more clearly what the app should do. A smaller app is easier."
_ENDPOINT, _MODEL, _LIMIT = Whose.ENDPOINT, Whose.MODEL, Whose.LIMIT

CATALOGUE: Mapping[str, Entry] = {
    # --- The endpoint ----------------------------------------------------------------------------------------------
    "endpoint_unreachable": Entry(_ENDPOINT, "The model's endpoint could not be reached.", _LATER, True),
    "endpoint_silent": Entry(_ENDPOINT, "The model's endpoint stopped responding.", _LATER, True),
    "endpoint_timeout": Entry(_ENDPOINT, "The model took too long to answer.", _LATER),
    "endpoint_failed": Entry(_ENDPOINT, "The model's endpoint failed.", _LATER, True),
    "rate_limited": Entry(_ENDPOINT, "The model's endpoint is limiting requests.", _LATER, True),
    "stream_cut": Entry(_ENDPOINT, "The model's answer broke off.", _LATER, True),
    "quota_exhausted": Entry(
        _ENDPOINT,
        "The account at the model's endpoint has no credit left.",
        "Once the operator has topped it up, retry the generation.",
    ),
    "endpoint_unauthorized": Entry(_ENDPOINT, "The model's endpoint does not accept the key.", _OPERATOR),
    "model_unknown": Entry(_ENDPOINT, "The model's endpoint does not have this model or address.", _OPERATOR),
    "request_refused": Entry(_ENDPOINT, "The model's endpoint refused the request.", _OPERATOR),
    "not_an_endpoint": Entry(
        _ENDPOINT, "The server at AI_BASE_URL does not implement the chat completions API.", _OPERATOR
    ),
    # --- The model ---------------------------------------------------------------------------------------------------
    "answer_not_json": Entry(_MODEL, "The model did not answer with the JSON it was asked for.", _REPHRASE),
    "answer_wrong_shape": Entry(_MODEL, "The model's JSON does not match the requested schema.", _REPHRASE),
    "answer_cut_off": Entry(_MODEL, "The model's answer is longer than the limit for one answer.", _REPHRASE),
    "answer_too_large": Entry(_MODEL, "The model kept writing and was stopped.", _REPHRASE),
    "answer_invalid": Entry(_MODEL, "The model's answer cannot be used.", _REPHRASE),
    "model_refused": Entry(
        _MODEL,
        "The model declined to answer.",
        "Explain in the prompt what the app is for, and leave out anything that may be offensive.",
    ),
    "invalid_plan": Entry(_MODEL, "The model's plan of the app cannot be used.", _REPHRASE),
    "file_failed": Entry(_MODEL, "A file that the app needs could not be written.", _LATER),
    "patch_failed": Entry(
        _MODEL,
        "The model's changes do not fit the files.",
        "Try again, or name the files and places to change.",
    ),
    # --- Limits and requests -----------------------------------------------------------------------------------------
    "context_too_long": Entry(
        Whose.REQUEST,
        "The prompt and the files together are longer than the model can read.",
        "Shorten the prompt, or leave large files out of the project; the operator may choose a larger model.",
    ),
    "files_refused": Entry(
        _LIMIT, "The app would exceed the limits for files.", "Ask for a smaller app, or raise the limits."
    ),
    "budget_reached": Entry(
        _LIMIT, "The generation has reached its token limit.", "Raise `config.maxTokens`, or ask for a smaller app."
    ),
    "no_model": Entry(
        Whose.REQUEST,
        "This needs a language model, and none is configured.",
        "Upload the files as a revision, or ask the operator to set AI_API_KEY.",
    ),
    "day_spent": Entry(
        _LIMIT, "Your daily token limit is reached.", "Retry tomorrow (UTC), or ask the operator for a higher limit."
    ),
    "project_changed": Entry(
        Whose.REQUEST,
        "The project got a new revision while this one was being written.",
        "Send the prompt again to apply it to the newer files.",
    ),
    "attempts_exhausted": Entry(
        Whose.INSTALLATION,
        "Every attempt failed because of errors in the installation.",
        "Retry it. If it fails again, contact the operator.",
    ),
    "cancelled": Entry(Whose.CANCELLED, "The generation was cancelled.", "Retry it, or send the prompt again."),
}


class EngineError(Exception):
    """An error from the catalogue. Raises KeyError for an unknown code.

    `detail` says what exactly happened, `subject` names the file. `retry_after`: seconds, if the endpoint gave them.
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


class InvalidAnswerError(EngineError):
    """The model answered, but not with what was asked for. `detail` is sent back to the model once."""


class GenerationCancelledError(EngineError):
    """The generation was cancelled by its user."""

    def __init__(self, detail: str = "") -> None:
        super().__init__("cancelled", detail)


def one_line(text: str) -> str:
    """One line of bounded length, safe for people and any database: no control characters, no unpaired surrogates."""
    line = re.sub(r"[\x00-\x20\x7f-\x9f]+", " ", text[: 4 * MAX_DETAIL_CHARS]).strip()
    line = line.encode(errors="replace").decode()
    return line if len(line) <= MAX_DETAIL_CHARS else line[: MAX_DETAIL_CHARS - 1] + "…"
