"""From a question to a checked answer: budget, retries, corrections, cancelling, and an Exchange for every request.

One Asker serves one generation. Its callbacks run only in the thread that made it, so that they can use that thread's
database connection: calls from other threads wait until that thread runs them.
"""

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from projects.engine.errors import EngineError, GenerationCancelledError, InvalidAnswerError
from projects.engine.model.budget import Allowance, Budget, Usage, estimate
from projects.engine.model.client import ModelClient, Reply, UnsupportedFeatureError
from projects.engine.model.exchanges import Exchange, Message, Redaction
from projects.engine.model.questions import Document, Question
from projects.engine.model.retries import pause

A = TypeVar("A", bound=Document)

_TICK = 0.1


def _ignore(exchange: Exchange) -> None:
    pass


def _never() -> bool:
    return False


class Asker:
    """Asks one model on behalf of one generation.

    `on_request` gets every exchange, redacted, before the request is sent, and may raise an EngineError to stop it;
    `on_exchange` gets it again, with the same id, once there is a result. `is_cancelled` is called several times a
    second while waiting for the model. `secrets` are pairs of name and value that must not be stored; the endpoint's
    key is always one of them.
    """

    def __init__(
        self,
        client: ModelClient,
        *,
        budget: Budget | None = None,
        on_request: Callable[[Exchange], None] = _ignore,
        on_exchange: Callable[[Exchange], None] = _ignore,
        is_cancelled: Callable[[], bool] = _never,
        secrets: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.budget = budget or Budget()
        self._client = client
        self._on_request, self._on_exchange = on_request, on_exchange
        self._is_cancelled = is_cancelled
        self._redact = Redaction([("MODEL_KEY", client.endpoint.api_key), *secrets])
        self._owner = threading.get_ident()
        self._stopped = threading.Event()
        self._untold: SimpleQueue[Callable[[], None]] = SimpleQueue()

    @property
    def used(self) -> Usage:
        return self.budget.used

    def stopped(self) -> bool:
        """Whether to stop. In the owner's thread this asks the callback and runs the calls of other threads."""
        if threading.get_ident() == self._owner:
            self.run_queued_calls()
            if not self._stopped.is_set() and self._is_cancelled():
                self._stopped.set()
        return self._stopped.is_set()

    def stop(self) -> None:
        """Stop every running question, in all threads."""
        self._stopped.set()

    def run_queued_calls(self) -> None:
        """Run the calls that other threads have queued. Only for the thread that made the Asker."""
        while True:
            try:
                call = self._untold.get_nowait()
            except Empty:
                return
            call()

    def _through_owner(self, call: Callable[[], None]) -> None:
        """Run a call in the owner's thread and wait. Raises what the call raises, and GenerationCancelledError."""
        if threading.get_ident() == self._owner:
            self.run_queued_calls()
            call()
            return
        done: Future[None] = Future()

        def make() -> None:
            try:
                call()
            except EngineError as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        self._untold.put(make)
        while not wait([done], timeout=_TICK).done:
            if self._stopped.is_set():
                raise GenerationCancelledError
        done.result()

    # --- Asking ----------------------------------------------------------------------------------------------------

    def ask(self, question: Question[A]) -> A:
        """A valid answer.

        An invalid answer goes back to the model once, with its errors. Raises InvalidAnswerError when the second one
        is invalid too, GenerationCancelledError, and other EngineErrors when there is no answer.
        """
        attempts = itertools.count(1)
        reply = Reply()
        try:
            return self._answer(question, attempts, reply)
        except InvalidAnswerError as bad:
            if bad.code == "model_refused":
                raise
            return self._answer(question.corrected(reply.text, bad.detail), attempts, Reply())

    def _answer(self, question: Question[A], attempts: Iterator[int], reply: Reply) -> A:
        """One answer; input that is too long for the model is shortened. `reply` holds the text afterwards."""
        try:
            return self._patiently(question, attempts, reply)
        except EngineError as error:
            if error.code != "context_too_long" or not question.can_shorten:
                raise
            return self._patiently(question.shortened(), attempts, reply)

    def _patiently(self, question: Question[A], attempts: Iterator[int], reply: Reply) -> A:
        failed = 0
        while True:
            vars(reply).update(vars(Reply()))  # a retry starts from an empty reply
            try:
                return self._once(question, next(attempts), reply)
            except UnsupportedFeatureError:
                continue  # immediately, and at most once for each feature an endpoint may lack
            except EngineError as error:
                failed += 1
                seconds = pause(error, failed, self._client.patience)
                if seconds is None:
                    raise
                self._sleep(seconds)

    def _once(self, question: Question[A], attempt: int, reply: Reply) -> A:
        """One request. Its outcome is always counted and reported."""
        if self.stopped():
            raise GenerationCancelledError
        messages = question.messages()
        into = estimate("".join(message["content"] for message in messages))
        most = self._client.endpoint.max_output
        allowance = self.budget.reserve(input=into, output=most, is_cancelled=self.stopped)
        limit = allowance.output if allowance.output < most else None
        request = self._client.request(messages, answer=question.answer, max_output=limit)
        exchange = self._opened(question, attempt, request, into)
        try:
            self._through_owner(lambda: self._on_request(exchange))
        except BaseException:
            self.budget.settle(allowance, Usage())
            raise
        started = time.monotonic()
        error: EngineError | None = None
        try:
            self._client.send(request, reply, max_chars=question.max_chars, is_cancelled=self.stopped)
            return self._read(question, reply, limit)
        except EngineError as raised:
            error = self._clean(raised)
            raise error from raised
        finally:
            usage = self._settle(allowance, reply, into)
            self._close(exchange, reply, usage, time.monotonic() - started, error)

    def _read(self, question: Question[A], reply: Reply, limit: int | None) -> A:
        if reply.refusal or reply.finish == "content_filter":
            raise InvalidAnswerError("model_refused", reply.refusal, subject=question.subject)
        if reply.finish == "length":
            if limit is not None:
                raise EngineError("budget_reached", "The remaining tokens were not enough for the answer.")
            raise InvalidAnswerError(
                "answer_cut_off", "It was cut off: write a much shorter answer.", subject=question.subject
            )
        return question.read(reply.text)

    def _clean(self, error: EngineError) -> EngineError:
        """The error without secrets: an endpoint may repeat the key that it rejects."""
        error.detail = self._redact(error.detail)
        error.args = tuple(self._redact(str(arg)) for arg in error.args)
        # An answer that was stopped for its size can be asked for again, like any invalid answer.
        return InvalidAnswerError(error.code, "It is far too long.") if error.code == "answer_too_large" else error

    def _settle(self, allowance: Allowance, reply: Reply, into: int) -> Usage:
        """What the endpoint reported, else an estimate of what it may have counted."""
        if reply.usage is None and reply.started:
            usage = Usage(input=into, output=estimate(reply.text), estimated=True)
        else:
            usage = reply.usage or Usage()
        self.budget.settle(allowance, usage)
        return usage

    def _opened(self, question: Question[Any], attempt: int, request: dict[str, Any], into: int) -> Exchange:
        """The exchange before there is a result: the record that remains if it never ends."""
        messages = [Message(role=each["role"], content=self._redact(each["content"])) for each in request["messages"]]
        return Exchange(
            id=uuid.uuid4(),
            stage=question.stage.value,
            subject=question.subject,
            attempt=attempt,
            model=self._client.endpoint.model,
            messages=tuple(messages),
            input_tokens=into,
            estimated=True,
        )

    def _close(self, exchange: Exchange, reply: Reply, usage: Usage, seconds: float, error: EngineError | None) -> None:
        outcome = {
            "answer": self._redact(reply.text or reply.refusal),
            "input_tokens": usage.input,
            "output_tokens": usage.output,
            "estimated": usage.estimated,
            "seconds": round(seconds, 3),
            "error": error.code if error else "",
            "detail": error.detail if error else "",
        }
        closed = exchange.model_copy(update=outcome)
        self._untold.put(lambda: self._on_exchange(closed))
        if threading.get_ident() == self._owner:
            self.run_queued_calls()

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self.stopped():
                raise GenerationCancelledError
            time.sleep(min(left, _TICK))
