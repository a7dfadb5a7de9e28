"""The client for a language model: any endpoint with OpenAI's chat completions API. The only importer of `openai`.

Sends one request and reads one streamed answer; anything that goes wrong becomes an EngineError. Retrying, counting and
checking the answer are up to the caller. Features that an endpoint lacks (JSON schemas, usage in streams, the newer
name of the token limit) are learned from its errors and remembered for the client's lifetime.
"""

import asyncio
import contextlib
import email.utils
import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from types import TracebackType
from typing import Any, cast

import openai
from pydantic import BaseModel

from projects.engine.errors import EngineError, GenerationCancelledError
from projects.engine.model.budget import Prices, Usage

DEFAULT_MODEL = "gpt-4o"
# Each token comes wrapped in some 250 bytes, so this is more than any model writes in one answer.
MAX_WIRE_BYTES = 64 * 1024**2
_TICK = 0.1  # seconds between checks of the deadline and of a cancel

# The only headers a request carries. The package would add others from this process's OPENAI_* variables.
_HEADERS = {"host", "accept", "accept-encoding", "connection", "user-agent", "authorization"}
_HEADERS |= {"content-type", "content-length", "transfer-encoding"}

_TOO_LONG = re.compile(
    r"context.?length|maximum context|context.?window|prompt is too long|too many (?:input )?tokens|input is too long",
    re.IGNORECASE,
)
_NO_STRUCTURE = re.compile(r"response.?format|json.?schema|structured.?output", re.IGNORECASE)
_NO_STREAM_USAGE = re.compile(r"stream.?options|include.?usage", re.IGNORECASE)
_NO_COMPLETION_LIMIT = re.compile(r"max.?completion.?tokens", re.IGNORECASE)


@dataclass(frozen=True)
class Endpoint:
    """Where the model is. `base_url` is what precedes `/chat/completions`; `max_output` is the model's own limit."""

    base_url: str
    api_key: str = field(repr=False)
    model: str = DEFAULT_MODEL
    prices: Prices = field(default_factory=Prices)
    max_output: int = 16_384


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds: to connect, between two pieces of an answer, and for a whole answer.

    `tries` includes the first one. `first_wait` doubles with each retry, up to `longest_wait`; if an endpoint asks for
    a longer wait than that, there is no retry.
    """

    connect: float = 10
    between: float = 120
    whole: float = 600
    tries: int = 4
    first_wait: float = 1
    longest_wait: float = 60


@dataclass
class Reply:
    """An answer while it is streamed; what was received is kept when the rest fails.

    `finish` is the endpoint's finish reason, None until it has sent one. `usage` is what it reported.
    """

    finish: str | None = None
    refusal: str = ""
    usage: Usage | None = None
    chars: int = 0
    _pieces: list[str] = field(default_factory=list)
    _response: Any = None

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def started(self) -> bool:
        """Whether the endpoint accepted the request, and so may charge tokens for it."""
        return self._response is not None and self._response.status_code < 400

    @property
    def wire_bytes(self) -> int:
        return self._response.num_bytes_downloaded if self._response is not None else 0

    def add(self, text: str) -> None:
        self._pieces.append(text)
        self.chars += len(text)


class UnsupportedFeatureError(EngineError):
    """The endpoint lacks a feature that the request used; the next request is made without it."""


_reply: ContextVar[Reply] = ContextVar("reply")


def warm_up() -> None:
    """Load what the package loads lazily for its first client, so that forked processes need not."""
    openai.AsyncOpenAI(api_key="none").chat.completions  # noqa: B018


class ModelClient:
    """A connection pool and a thread that reads from it. Threads may share one. Use it in a `with` statement."""

    def __init__(self, endpoint: Endpoint, patience: Patience | None = None) -> None:
        self.endpoint = endpoint
        self.patience = patience or Patience()
        self._structured = True
        self._stream_usage = True
        self._limit_name = "max_completion_tokens"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="model-client", daemon=True)
        times = openai.Timeout(self.patience.whole, connect=self.patience.connect, read=self.patience.between)
        hooks: dict[str, list[Callable[..., Any]]] = {"request": [_only_known_headers], "response": [_note_response]}
        self._http = openai.DefaultAsyncHttpxClient(event_hooks=hooks, timeout=times)
        self._openai = openai.AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key=endpoint.api_key or "none",  # a local endpoint needs no key, but the package does
            http_client=self._http,
            timeout=times,
            max_retries=0,
        )

    def __enter__(self) -> "ModelClient":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        ours = asyncio.current_task()
        left = [task for task in asyncio.all_tasks() if task is not ours]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._openai.close()

    # --- A request -------------------------------------------------------------------------------------------------

    def request(
        self, messages: Sequence[dict[str, str]], *, answer: type[BaseModel], max_output: int | None
    ) -> dict[str, Any]:
        """The request's body for an answer of that schema, in a form that this endpoint accepts."""
        body: dict[str, Any] = {"model": self.endpoint.model, "messages": list(messages), "stream": True}
        schema = answer.model_json_schema()
        if self._structured:
            named = {"name": answer.__name__.lower(), "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        else:
            first, *rest = messages
            body["messages"] = [{**first, "content": first["content"] + _in_words(schema)}, *rest]
        if self._stream_usage:
            body["stream_options"] = {"include_usage": True}
        if max_output is not None:
            body[self._limit_name] = max_output
        return body

    def send(self, request: dict[str, Any], reply: Reply, *, max_chars: int, is_cancelled: Callable[[], bool]) -> None:
        """Send a request and read its answer into `reply`, whole.

        Raises EngineError; UnsupportedFeatureError when the request can be repeated without a feature it used;
        GenerationCancelledError within a second of `is_cancelled` turning true (checked ten times a second).
        """
        deadline = time.monotonic() + self.patience.whole
        future = asyncio.run_coroutine_threadsafe(self._receive(request, reply, max_chars), self._loop)
        try:
            while not wait([future], timeout=_TICK).done:
                if is_cancelled():
                    raise GenerationCancelledError
                if time.monotonic() > deadline:
                    raise EngineError(
                        "endpoint_timeout", f"There was no complete answer within {self.patience.whole:g} s."
                    )
                if reply.wire_bytes > MAX_WIRE_BYTES:
                    raise EngineError("answer_too_large", f"It sent more than {MAX_WIRE_BYTES:,} bytes.")
            self._result(future, request, reply)
        finally:
            future.cancel()

    def _result(self, future: "Future[None]", request: dict[str, Any], reply: Reply) -> None:
        try:
            future.result()
        except openai.APIStatusError as error:
            raise self._refusal(error, request) from error
        except openai.APITimeoutError as error:
            connecting = "Connect" in type(error.__cause__).__name__
            code = "endpoint_unreachable" if connecting else "endpoint_silent"
            seconds = self.patience.connect if connecting else self.patience.between
            raise EngineError(code, f"It sent nothing for {seconds:g} s.") from error
        except openai.APIConnectionError as error:
            code = "stream_cut" if reply.started else "endpoint_unreachable"
            raise EngineError(code, str(error.__cause__ or error)) from error
        except openai.APIError as error:
            raise _told_in_stream(error) from error
        except (openai.OpenAIError, ValueError) as error:  # incomplete JSON, invalid UTF-8
            code = "stream_cut" if reply.started else "not_an_endpoint"
            raise EngineError(code, f"{type(error).__name__}: {error}") from error

    async def _receive(self, request: dict[str, Any], reply: Reply, max_chars: int) -> None:
        _reply.set(reply)
        create = cast(Any, self._openai.chat.completions.create)
        async with await create(**request) as stream:
            kind = stream.response.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                raise EngineError(
                    "not_an_endpoint", f"It answered with {kind or 'no content type'}, not with a stream."
                )
            async for chunk in stream:
                _read(chunk, reply)
                if reply.chars > max_chars:
                    raise EngineError("answer_too_large", f"The answer has more than {max_chars:,} characters.")
        if reply.finish is None:
            raise EngineError("stream_cut", f"It ended after {reply.chars:,} characters without a finish reason.")

    def _refusal(self, error: openai.APIStatusError, request: dict[str, Any]) -> EngineError:
        """The error for an HTTP status; remembers features that the endpoint lacks."""
        message = _message_of(error)
        if error.status_code in (400, 422) and not _TOO_LONG.search(message):
            if "stream_options" in request and _NO_STREAM_USAGE.search(message):
                self._stream_usage = False
                return UnsupportedFeatureError("request_refused", message)
            if "response_format" in request and _NO_STRUCTURE.search(message):
                self._structured = False
                return UnsupportedFeatureError("request_refused", message)
            if "max_completion_tokens" in request and _NO_COMPLETION_LIMIT.search(message):
                self._limit_name = "max_tokens"
                return UnsupportedFeatureError("request_refused", message)
        return EngineError(_code(error.status_code, message), message, retry_after=_retry_after(error.response.headers))


async def _only_known_headers(request: Any) -> None:
    for name in [name for name in request.headers if name.lower() not in _HEADERS]:
        del request.headers[name]


async def _note_response(response: Any) -> None:
    with contextlib.suppress(LookupError):
        _reply.get()._response = response


def _in_words(schema: dict[str, Any]) -> str:
    return (
        "\n\nAnswer with one JSON object and nothing else: no words before or after it, no code fence. "
        f"It must fit this JSON schema:\n{json.dumps(schema)}"
    )


# --- Reading what comes ----------------------------------------------------------------------------------------------


def _read(chunk: Any, reply: Reply) -> None:
    """Add one chunk. The package builds its objects unchecked, so any field may hold anything."""
    choices = getattr(chunk, "choices", None)
    if not isinstance(choices, list):
        raise EngineError("not_an_endpoint", "A chunk of the stream is not a chat completion.")
    reply.usage = _usage(getattr(chunk, "usage", None)) or reply.usage
    for choice in choices[:1]:
        delta = getattr(choice, "delta", None)
        if isinstance(content := getattr(delta, "content", None), str):
            reply.add(content)
        if isinstance(refusal := getattr(delta, "refusal", None), str):
            reply.refusal += refusal
        if isinstance(finish := getattr(choice, "finish_reason", None), str):
            reply.finish = finish


def _usage(message: Any) -> Usage | None:
    """The usage that the endpoint reports, if it is plausible: numbers, none below zero."""
    numbers = [getattr(message, name, None) for name in ("prompt_tokens", "completion_tokens")]
    if any(not isinstance(number, int) or isinstance(number, bool) or number < 0 for number in numbers):
        return None
    return Usage(input=cast(int, numbers[0]), output=cast(int, numbers[1]))


# --- What went wrong -------------------------------------------------------------------------------------------------


def _message_of(error: openai.APIStatusError) -> str:
    """The endpoint's own message, in one line; for a web page, only that it is one."""
    kind = error.response.headers.get("content-type", "")
    if "html" in kind or str(error.body or "").lstrip()[:1] == "<":
        return f"HTTP {error.status_code}, a web page."
    said = [error.message] if isinstance(error.message, str) else []
    return f"HTTP {error.status_code}: " + " ".join([*said, *(str(each) for each in (error.code, error.param) if each)])


def _code(status: int, message: str) -> str:
    if status in (400, 413, 422) and _TOO_LONG.search(message):
        return "context_too_long"
    if status == 429:
        return "quota_exhausted" if "insufficient_quota" in message else "rate_limited"
    if status in (401, 403):
        return "endpoint_unauthorized"
    if status == 404:
        return "model_unknown"
    return "endpoint_failed" if status >= 500 or status in (408, 409) else "request_refused"


def _told_in_stream(error: openai.APIError) -> EngineError:
    message = f"{error.message} {error.code or ''}"
    if _TOO_LONG.search(message):
        return EngineError("context_too_long", message)
    if "insufficient_quota" in message:
        return EngineError("quota_exhausted", message)
    return EngineError("rate_limited" if "rate_limit" in message else "endpoint_failed", message)


def _retry_after(headers: Any) -> float | None:
    """How many seconds the endpoint asks to wait (a number or a date); None when it gives nothing usable."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        with contextlib.suppress(ValueError, ArithmeticError):
            if (seconds := float(Decimal(headers.get(name, "")) / unit)) >= 0:
                return seconds
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(email.utils.parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time(), 0.0)
    return None
