"""A language model with scripted answers, over real HTTP: OpenAI's streamed chat completions.

Every request is checked against the public API: the `openai` package's request types, and the documented rules for
strict schemas. `faults` collects violations; the fixture `model` fails the test that caused one.
"""

import json
import re
import socket
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from pydantic import TypeAdapter, ValidationError

KEY = "sk-scripted-0123456789abcdef"
HTML = "<!doctype html><html><body>Welcome to the proxy</body></html>"
_REQUEST: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsStreaming)
# The JSON schema keywords that structured outputs have always supported.
_KEYWORDS = {"$defs", "$ref", "title", "description", "type", "properties", "required", "additionalProperties"}
_KEYWORDS |= {"items", "enum", "const", "anyOf"}


class Answer(Protocol):
    def send(self, to: "Connection") -> None: ...


class Connection:
    """The response to one client."""

    def __init__(self, handler: BaseHTTPRequestHandler, body: Mapping[str, Any], closing: threading.Event) -> None:
        self.body = body
        self.closing = closing
        self._handler = handler

    def status(self, status: int, content: bytes, kind: str, headers: Mapping[str, str]) -> None:
        self._handler.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self._handler.send_header(name, value)
        self._end_headers()
        self._handler.wfile.write(content)

    def begin(self) -> None:
        self._handler.send_response(200)
        self._handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self._handler.send_header("Transfer-Encoding", "chunked")
        self._end_headers()

    def _end_headers(self) -> None:
        # One request per connection, so that closing waits for no idle one; clients must know, or they may reuse it.
        self._handler.send_header("Connection", "close")
        self._handler.end_headers()

    def raw(self, content: bytes) -> None:
        self._handler.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))
        self._handler.wfile.flush()

    def event(self, data: Any) -> None:
        self.raw(f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode())

    def piece(self, *, finish: str | None = None, **delta: Any) -> None:
        self.event(chunk([{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]))

    def end(self) -> None:
        self.raw(b"")

    def hang_up(self) -> None:
        self._handler.close_connection = True
        with suppress(OSError):
            self._handler.connection.shutdown(socket.SHUT_RDWR)


def chunk(choices: list[Any], **more: Any) -> dict[str, Any]:
    identity = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    return {**identity, "choices": choices, **more}


def tokens(input: Any, output: Any) -> dict[str, Any]:
    total = input + output if isinstance(input, int) and isinstance(output, int) else 0
    return {"prompt_tokens": input, "completion_tokens": output, "total_tokens": total}


@dataclass(frozen=True)
class Says:
    """A complete answer. `usage` is sent if the request asks for it."""

    text: str | Mapping[str, Any]
    finish: str = "stop"
    usage: tuple[Any, Any] | None = (100, 10)
    refusal: str = ""
    seconds: float = 0

    def send(self, to: Connection) -> None:
        text = self.text if isinstance(self.text, str) else json.dumps(self.text)
        to.closing.wait(self.seconds)
        to.begin()
        to.piece(role="assistant", content="")
        for start in range(0, len(text), 4096):
            to.piece(content=text[start : start + 4096])
        if self.refusal:
            to.piece(refusal=self.refusal)
        to.piece(finish=self.finish)
        if self.usage and to.body.get("stream_options", {}).get("include_usage"):
            to.event(chunk([], usage=tokens(*self.usage)))
        to.event("[DONE]")
        to.end()


@dataclass(frozen=True)
class Refuses:
    """An error in the API's format; or, with `page`, a proxy's HTML page."""

    status: int
    message: str = "No."
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    page: str = ""

    def send(self, to: Connection) -> None:
        error = {"message": self.message, "type": "error", "param": self.param, "code": self.code}
        content = self.page or json.dumps({"error": error})
        kind = "text/html" if self.page else "application/json"
        to.status(self.status, content.encode(), kind, self.headers)


@dataclass(frozen=True)
class Page:
    """A response that is not an API answer, with status 200."""

    content: str = HTML
    kind: str = "text/html"

    def send(self, to: Connection) -> None:
        to.status(200, self.content.encode(), self.kind, {})


@dataclass(frozen=True)
class Streams:
    """Raw events; then `cut` closes the connection in mid-transfer, `stall` sends nothing more."""

    events: tuple[Any, ...] = ()
    cut: bool = False
    stall: bool = False

    def send(self, to: Connection) -> None:
        to.begin()
        for event in self.events:
            to.raw(event) if isinstance(event, bytes) else to.event(event)
        if self.stall:
            to.closing.wait()
        if self.cut:
            to.hang_up()
        else:
            to.end()


@dataclass(frozen=True)
class NeverEnds:
    """The same chunk, until the client disconnects; with `line`, all in one endless line."""

    text: str = "and so on "
    line: bool = False
    seconds: float = 0

    def send(self, to: Connection) -> None:
        to.begin()
        to.raw(b"data: ") if self.line else None
        while not to.closing.wait(self.seconds):
            to.raw(self.text.encode()) if self.line else to.piece(content=self.text)


class ScriptedModel:
    """`says(key, …)` queues answers; a key is a document's name, or the path of the requested file.

    The key "*" answers requests without a queue of their own. `lacks`: parameters that the endpoint refuses, with the
    message. `requests`: the bodies. `author` is called before the queues are used, with key and body, one request at a
    time; it returns None to leave the request to them.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.faults: list[str] = []
        self.lacks: dict[str, str] = {}
        self.keys: list[str] = []
        self.author: Callable[[str, Mapping[str, Any]], Answer | None] | None = None
        self.busy = self.most_busy = 0
        self._answers: defaultdict[str, deque[Answer]] = defaultdict(deque)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "ScriptedModel":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()  # waits for the handlers' threads
        self._thread.join()

    def says(self, key: str, *answers: Answer | str | Mapping[str, Any]) -> None:
        made = [Says(answer) if isinstance(answer, str | Mapping) else answer for answer in answers]
        self._answers[key].extend(made)

    def left(self) -> dict[str, int]:
        """The number of unused answers, by key."""
        return {key: len(answers) for key, answers in self._answers.items() if answers}

    def asked(self, key: str) -> int:
        return self.keys.count(key)

    def forget(self) -> None:
        """Reset for the next test: no requests, no answers."""
        with self._lock:
            for record in (self.requests, self.headers, self.times, self.faults, self.keys):
                record.clear()
            self.lacks, self.author = {}, None
            self._answers.clear()

    # --- As a server -------------------------------------------------------------------------------------------------

    def take(self, path: str, headers: Mapping[str, str], body: dict[str, Any], to: Connection) -> None:
        with self._lock:
            self.times.append(time.monotonic())
            self.requests.append(body)
            self.headers.append({name.lower(): value for name, value in headers.items()})
            self.faults += [] if path == "/v1/chat/completions" else [f"The path is {path}."]
            self.faults += request_faults(body)
            self.keys.append(key := _key(body))
            answer = self._choose(key, body)
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
        try:
            answer.send(to)
        except OSError:
            to.hang_up()  # the client has disconnected
        finally:
            with self._lock:
                self.busy -= 1

    def _choose(self, key: str, body: Mapping[str, Any]) -> Answer:
        for name, message in self.lacks.items():
            if name in body:
                return Refuses(400, message)
        if self.author and (answer := self.author(key, body)):
            return answer
        for queue in (self._answers[key], self._answers["*"]):
            if queue:
                return queue.popleft()
        self.faults.append(f"There is no scripted answer to {key}.")
        return Refuses(400, "There is no answer to this request.")


def _handler(model: ScriptedModel) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            model.take(self.path, dict(self.headers), body, Connection(self, body, model._closing))
            self.close_connection = True

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


def _key(body: Mapping[str, Any]) -> str:
    """What the request asks for: a file's path, else a document's name."""
    user = "\n".join(str(message["content"]) for message in body["messages"] if message["role"] == "user")
    if file := re.search(r"<<<\w+ the file to write now>>>\n(.+)", user):
        return file[1]
    if "response_format" in body:
        return str(body["response_format"]["json_schema"]["name"])
    schema = re.search(r"JSON schema:\n(\{.*\})", str(body["messages"][0]["content"]))
    return str(json.loads(schema[1])["title"]).lower() if schema else "?"


# --- Checks of requests ----------------------------------------------------------------------------------------------


def request_faults(body: Mapping[str, Any]) -> list[str]:
    """Reasons why the real endpoint would refuse the request."""
    faults = [
        f"Unknown parameter: {name}." for name in body.keys() - CompletionCreateParamsStreaming.__annotations__.keys()
    ]
    try:
        checked = _REQUEST.validate_python(body)
        list(checked["messages"])  # validated lazily
    except ValidationError as error:
        faults.append(str(error))
    if body.get("stream") is not True:
        faults.append("The request is not streamed.")
    if "response_format" in body:
        named = body["response_format"]["json_schema"]
        faults += [] if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", named["name"]) else [f"The name {named['name']!r}."]
        faults += [] if named["strict"] is True else ["The schema is not strict."]
        faults += [] if named["schema"].get("type") == "object" else ["The schema's root is not an object."]
        faults += schema_faults(named["schema"])
    return faults


def schema_faults(schema: Any, at: str = "$") -> list[str]:
    """What strict structured outputs do not allow in a schema, by place."""
    if not isinstance(schema, Mapping):
        return [f"{at} is not a schema."]
    faults = [f"{at} has {name!r}." for name in schema.keys() - _KEYWORDS]
    properties = schema.get("properties", {})
    if schema.get("type") == "object":
        faults += [] if schema.get("additionalProperties") is False else [f"{at} allows other properties."]
        faults += [] if sorted(schema.get("required", [])) == sorted(properties) else [f"{at} does not require all."]
    nested: Iterable[tuple[str, Any]] = [
        *((f"{at}.{name}", each) for name, each in {**properties, **schema.get("$defs", {})}.items()),
        *((f"{at}|{number}", each) for number, each in enumerate(schema.get("anyOf", []))),
        *([(f"{at}[]", schema["items"])] if "items" in schema else []),
    ]
    for place, each in nested:
        faults += schema_faults(each, place)
    return faults
