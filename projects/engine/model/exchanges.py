"""The requests to the model and its answers, safe to store: without secrets, with tokens, time and error."""

import json
import re
from collections.abc import Iterable
from urllib.parse import quote
from uuid import UUID

from pydantic import BaseModel, ConfigDict

LEAST_SECRET_CHARS = 6

# What keys look like, by issuer: OpenAI and similar, Stripe, GitHub, GitLab, AWS, Google, Slack, npm,
# PyPI, Hugging Face, SendGrid; JSON web tokens, private keys, passwords in addresses.
_KEYS = re.compile(
    r"\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[A-Za-z0-9_-]{16,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[A-Za-z0-9_-]{30,}|\bxox[abeoprs]-[A-Za-z0-9-]{10,}"
    r"|\bnpm_[A-Za-z0-9]{30,}|\bpypi-[A-Za-z0-9_-]{30,}|\bhf_[A-Za-z0-9]{20,}|\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)
_BEARER = re.compile(r"(\b[Bb]earer\s+)[A-Za-z0-9._~+/=-]{16,}")
_PASSWORD_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"']{0,100}:)[^\s/@\"']{3,200}(?=@)")
# A name that suggests a secret, followed by text without spaces that is not a word or variable.
_NAMED = re.compile(
    r"""((?:api[_-]?key|secret|token|passw(?:or)?d|credential)s?\\?["']?\s{0,3}[:=]\s{0,3}\\?["'])[^\s"'\\]{12,}""",
    re.IGNORECASE,
)


class Redaction:
    """Removes known secrets (pairs of name and value), and anything that looks like a key."""

    def __init__(self, secrets: Iterable[tuple[str, str]] = ()) -> None:
        masks: dict[str, str] = {}
        for name, value in secrets:
            for form in (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], quote(value, "")):
                if len(form) >= LEAST_SECRET_CHARS:
                    masks.setdefault(form, f"[secret {name}]")
        self._masks = sorted(
            masks.items(), key=lambda mask: -len(mask[0])
        )  # longest first: one secret may be part of another

    def __call__(self, text: str) -> str:
        for form, mask in self._masks:
            text = text.replace(form, mask)
        text = _KEYS.sub("[secret]", text)
        for known_place in (_BEARER, _PASSWORD_IN_URL, _NAMED):
            text = known_place.sub(r"\1[secret]", text)
        return text


class Message(BaseModel):
    """One message of a request, as sent, with secrets redacted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    content: str


class Exchange(BaseModel):
    """One request and its result. `attempt` counts the requests for one answer; `error` is a code, or empty.

    `seconds` is None until there is a result; the tokens are then an estimate of the input.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: UUID
    stage: str
    subject: str
    attempt: int
    model: str
    messages: tuple[Message, ...]
    answer: str = ""
    input_tokens: int
    output_tokens: int = 0
    estimated: bool
    seconds: float | None = None
    error: str = ""
    detail: str = ""
