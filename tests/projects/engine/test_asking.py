import threading
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from projects.engine.errors import CATALOGUE, EngineError, GenerationCancelledError, InvalidAnswerError
from projects.engine.model.asking import Asker
from projects.engine.model.budget import Budget, Prices, Usage
from projects.engine.model.exchanges import Exchange
from projects.engine.model.questions import Document, Part, Question, Stage
from tests.projects.engine.conftest import PATIENCE
from tests.scripted_model import (
    KEY,
    NeverEnds,
    Page,
    Refuses,
    Says,
    ScriptedModel,
    Streams,
    chunk,
    tokens,
)

pytestmark = pytest.mark.once("postgresql")

MakeAsker = Callable[..., Asker]


class Sum(Document):
    total: int


def question(**options: Any) -> Question[Sum]:
    return Question(Stage.INTENT, Sum, options.pop("parts", (Part("request", "2 + 2"),)), **options)


def codes(exchanges: list[Exchange]) -> list[str]:
    return [exchange.error for exchange in exchanges]


# --- Valid answers ---------------------------------------------------------------------------------------------------


def test_an_answer_is_returned_as_a_validated_document(model: ScriptedModel, make_asker: MakeAsker) -> None:
    model.says("sum", {"total": 4})

    assert make_asker().ask(question()) == Sum(total=4)

    [request] = model.requests
    assert request["model"] == "gpt-4o"
    assert request["stream_options"] == {"include_usage": True}
    assert request["response_format"]["json_schema"]["schema"]["additionalProperties"] is False
    assert "max_completion_tokens" not in request  # without a budget, the model's own limit applies


def test_the_request_contains_the_key_and_nothing_from_the_environment(
    model: ScriptedModel, make_asker: MakeAsker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-the-host")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-the-host")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Host-Secret: of-the-host")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/of-the-host")
    model.says("sum", {"total": 4})

    make_asker().ask(question())

    assert model.headers[0]["authorization"] == f"Bearer {KEY}"
    assert "of-the-host" not in str(model.headers) + str(model.requests)


def test_an_endpoint_without_json_schemas_gets_the_schema_in_the_prompt(
    model: ScriptedModel, make_asker: MakeAsker, exchanges: list[Exchange]
) -> None:
    model.lacks = {"response_format": "This model does not support response format `json_schema`"}
    model.says("sum", '```json\n{"total": 4}\n```', {"total": 5})
    asker = make_asker()

    assert [asker.ask(question()).total, asker.ask(question()).total] == [4, 5]
    assert ["response_format" in request for request in model.requests] == [True, False, False]
    assert '"total"' in model.requests[1]["messages"][0]["content"]
    assert codes(exchanges) == ["request_refused", "", ""]


def test_stream_usage_is_not_requested_again_after_a_refusal(model: ScriptedModel, make_asker: MakeAsker) -> None:
    model.lacks = {"stream_options": "Unrecognized request argument supplied: stream_options"}
    model.says("sum", {"total": 4}, {"total": 5})
    asker = make_asker()

    asker.ask(question())
    asker.ask(question())

    assert ["stream_options" in request for request in model.requests] == [True, False, False]
    assert asker.used.estimated


def test_the_older_name_of_the_token_limit_is_a_fallback(model: ScriptedModel, make_asker: MakeAsker) -> None:
    model.lacks = {"max_completion_tokens": "Unknown parameter: max_completion_tokens"}
    model.says("sum", {"total": 4})

    make_asker(budget=Budget(5_000)).ask(question())

    assert "max_completion_tokens" in model.requests[0]
    assert 0 < model.requests[1]["max_tokens"] < 5_000


# --- Invalid answers -------------------------------------------------------------------------------------------------

BAD = {
    "prose": ("Of course! I would love to add these up for you.", "answer_not_json"),
    "half a JSON": ('{"total": 4', "answer_not_json"),
    "braces that are not JSON": ("{total is four}", "answer_not_json"),
    "another shape": ({"sum": 4}, "answer_wrong_shape"),
    "a list": ("[4]", "answer_not_json"),
    "more than asked": ({"total": 4, "also": 5}, "answer_wrong_shape"),
    "nothing": ("", "answer_not_json"),
    "cut off by its length": (Says('{"total": 4', finish="length"), "answer_cut_off"),
}


@pytest.mark.parametrize(("answer", "code"), BAD.values(), ids=BAD.keys())
def test_an_invalid_answer_is_sent_back_once_with_its_errors(
    answer: Any, code: str, model: ScriptedModel, make_asker: MakeAsker, exchanges: list[Exchange]
) -> None:
    model.says("sum", answer, {"total": 4})

    assert make_asker().ask(question()).total == 4

    assert codes(exchanges) == [code, ""]
    assert [exchange.attempt for exchange in exchanges] == [1, 2]
    roles = [message["role"] for message in model.requests[1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert exchanges[0].detail in model.requests[1]["messages"][-1]["content"]


@pytest.mark.parametrize(("answer", "code"), BAD.values(), ids=BAD.keys())
def test_a_second_invalid_answer_is_an_error(
    answer: Any, code: str, model: ScriptedModel, make_asker: MakeAsker
) -> None:
    model.says("sum", answer, answer)

    with pytest.raises(InvalidAnswerError) as caught:
        make_asker().ask(question())

    assert caught.value.code == code
    assert not model.left()


def test_errors_found_by_the_check_are_sent_back_too(model: ScriptedModel, make_asker: MakeAsker) -> None:
    model.says("sum", {"total": 5}, {"total": 4})

    def faults(answer: Sum) -> list[str]:
        return [] if answer.total == 4 else [f"{answer.total} is not the sum."]

    assert make_asker().ask(question(faults=faults)).total == 4
    assert "5 is not the sum." in model.requests[1]["messages"][-1]["content"]


@pytest.mark.parametrize("answer", [Says("", refusal="I cannot help."), Says("", finish="content_filter")])
def test_a_refusal_is_not_retried(answer: Says, model: ScriptedModel, make_asker: MakeAsker) -> None:
    model.says("sum", answer)

    with pytest.raises(InvalidAnswerError) as caught:
        make_asker().ask(question())

    assert caught.value.code == "model_refused"


# --- Endpoint errors -------------------------------------------------------------------------------------------------

PASSING = {
    "500": (Refuses(500), "endpoint_failed"),
    "503 with an HTML page": (Refuses(503, page="<html>down</html>"), "endpoint_failed"),
    "429": (Refuses(429), "rate_limited"),
    "cut in the transfer": (Streams((chunk([]),), cut=True), "stream_cut"),
    "cut between pieces": (Streams((chunk([{"index": 0, "delta": {"content": '{"total"'}}]),)), "stream_cut"),
    "half an event": (Streams((b'data: {"choices": [\n\n',)), "stream_cut"),
    "error in the stream": (Streams(({"error": {"message": "Overloaded"}},)), "endpoint_failed"),
    "hangs up immediately": (Streams((), cut=True), "stream_cut"),
}


@pytest.mark.parametrize(("fault", "code"), PASSING.values(), ids=PASSING.keys())
def test_a_temporary_error_is_retried(
    fault: Any, code: str, model: ScriptedModel, make_asker: MakeAsker, exchanges: list[Exchange]
) -> None:
    model.says("sum", fault, fault, {"total": 4})

    assert make_asker().ask(question()).total == 4
    assert codes(exchanges) == [code, code, ""]


@pytest.mark.parametrize(("fault", "code"), PASSING.values(), ids=PASSING.keys())
def test_a_repeated_temporary_error_is_raised(
    fault: Any, code: str, model: ScriptedModel, make_asker: MakeAsker
) -> None:
    model.says("sum", fault, fault, fault)

    with pytest.raises(EngineError) as caught:
        make_asker().ask(question())

    assert caught.value.code == code
    assert "<" not in str(caught.value)


LASTING = {
    "401": (Refuses(401, f"Incorrect API key provided: {KEY}"), "endpoint_unauthorized"),
    "404": (Refuses(404, "The model does not exist", "model_not_found"), "model_unknown"),
    "400": (Refuses(400, "Unsupported value"), "request_refused"),
    "quota exhausted": (Refuses(429, "You exceeded your quota", "insufficient_quota"), "quota_exhausted"),
    "an HTML page": (Page(), "not_an_endpoint"),
    "another content type": (Page('{"choices": []}', "application/json"), "not_an_endpoint"),
    "another API's events": (Streams(({"type": "ping"},)), "not_an_endpoint"),
    "events that are numbers": (Streams((5,)), "not_an_endpoint"),
}


@pytest.mark.parametrize(("fault", "code"), LASTING.values(), ids=LASTING.keys())
def test_a_permanent_error_is_raised_at_once(
    fault: Any, code: str, model: ScriptedModel, make_asker: MakeAsker, exchanges: list[Exchange]
) -> None:
    model.says("sum", fault)

    with pytest.raises(EngineError) as caught:
        make_asker().ask(question())

    assert caught.value.code == code
    assert caught.value.entry.hint
    assert codes(exchanges) == [code]
    assert KEY not in str(caught.value) + caught.value.detail + exchanges[0].model_dump_json()


def test_retry_after_is_honoured(model: ScriptedModel, make_asker: MakeAsker) -> None:
    model.says("sum", Refuses(429, headers={"Retry-After": "0.5"}), {"total": 4})

    make_asker().ask(question())

    assert 0.5 <= model.times[1] - model.times[0] < 1.5


def test_too_long_a_retry_after_gives_up(model: ScriptedModel, make_asker: MakeAsker) -> None:
    model.says("sum", Refuses(429, headers={"Retry-After": "3600"}))

    with pytest.raises(EngineError) as caught:
        make_asker().ask(question())

    assert (caught.value.code, caught.value.retry_after) == ("rate_limited", 3600)


def test_an_unreachable_endpoint_is_an_error(
    model: ScriptedModel, make_asker: MakeAsker, exchanges: list[Exchange]
) -> None:
    asker = make_asker(endpoint={"base_url": "http://127.0.0.1:1/v1"})

    with pytest.raises(EngineError) as caught:
        asker.ask(question())

    assert caught.value.code == "endpoint_unreachable"
    assert len(exchanges) == PATIENCE.tries
    assert asker.used == Usage()


def test_silence_times_out(model: ScriptedModel, make_asker: MakeAsker, exchanges: list[Exchange]) -> None:
    model.says("sum", Streams(stall=True), Streams((chunk([]),), stall=True))

    with pytest.raises(EngineError) as caught:
        make_asker(patience=replace(PATIENCE, between=0.2, tries=2)).ask(question())

    assert caught.value.code == "endpoint_silent"
    assert codes(exchanges) == ["endpoint_silent"] * 2


def test_too_slow_an_answer_times_out(model: ScriptedModel, make_asker: MakeAsker) -> None:
    model.says("sum", NeverEnds("a", seconds=0.05))

    started = time.monotonic()
    with pytest.raises(EngineError) as caught:
        make_asker(patience=replace(PATIENCE, whole=0.5)).ask(question())

    assert caught.value.code == "endpoint_timeout"
    assert time.monotonic() - started < 1.5


def test_an_endless_answer_is_stopped_at_the_size_limit(model: ScriptedModel, make_asker: MakeAsker) -> None:
    model.says("sum", NeverEnds("and so on " * 500), Says("x" * 200_000))

    with pytest.raises(InvalidAnswerError) as caught:
        make_asker().ask(question(max_chars=100_000))

    assert caught.value.code == "answer_too_large"


def test_an_endless_line_is_stopped_at_the_size_limit(
    model: ScriptedModel, make_asker: MakeAsker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projects.engine.model.client.MAX_WIRE_BYTES", 1_000_000)
    model.says("sum", *[NeverEnds("x" * 100_000, line=True, seconds=0.001)] * 2)

    with pytest.raises(InvalidAnswerError) as caught:
        make_asker().ask(question())

    assert caught.value.code == "answer_too_large"


# --- Context limits --------------------------------------------------------------------------------------------------

TOO_LONG = Refuses(400, "This model's maximum context length is 8192 tokens.", "context_length_exceeded")
LONG = (Part("request", "2 + 2"), Part("file a", "x" * 500, shorter=""), Part("log", "y" * 500, shorter="the end"))


def test_optional_parts_are_dropped_from_too_long_a_question(model: ScriptedModel, make_asker: MakeAsker) -> None:
    model.says("sum", TOO_LONG, {"total": 4})

    make_asker().ask(question(parts=LONG))

    shorter = model.requests[1]["messages"][1]["content"]
    assert "xxx" not in shorter
    assert "the end" in shorter
    assert "2 + 2" in shorter


@pytest.mark.parametrize(("parts", "tries"), [(LONG, 2), (LONG[:1], 1)])
def test_a_question_that_stays_too_long_is_an_error(
    parts: tuple[Part, ...], tries: int, model: ScriptedModel, make_asker: MakeAsker
) -> None:
    model.says("sum", *[TOO_LONG] * tries)

    with pytest.raises(EngineError) as caught:
        make_asker().ask(question(parts=parts))

    assert caught.value.code == "context_too_long"
    assert not model.left()


# --- Cancelling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [Streams(stall=True), NeverEnds(seconds=0.02), Refuses(429, headers={"Retry-After": "2"}), Says("{}", seconds=5)],
    ids=["while silent", "while streaming", "while waiting", "before the answer"],
)
def test_cancelling_is_noticed_within_a_second(answer: Any, model: ScriptedModel, make_asker: MakeAsker) -> None:
    cancel = threading.Event()
    timer = threading.Timer(0.3, cancel.set)
    model.says("sum", answer)
    asker = make_asker(is_cancelled=cancel.is_set)
    timer.start()

    started = time.monotonic()
    with pytest.raises(GenerationCancelledError):
        asker.ask(question())

    assert time.monotonic() - started < 1.3
    timer.join()


# --- Tokens ----------------------------------------------------------------------------------------------------------


def test_tokens_add_up_over_retries_and_corrections(
    model: ScriptedModel, make_asker: MakeAsker, exchanges: list[Exchange]
) -> None:
    cut = Streams((chunk([], usage=tokens(70, 3)),))  # some endpoints report usage in every event
    model.says("sum", Refuses(500), cut, Says("prose", usage=(100, 20)), Says({"total": 4}, usage=(150, 7)))
    asker = make_asker()

    asker.ask(question())

    assert asker.used == Usage(input=320, output=30)
    assert [(each.input_tokens, each.output_tokens) for each in exchanges] == [(0, 0), (70, 3), (100, 20), (150, 7)]
    prices = Prices(input=Decimal("2.50"), output=Decimal(10))
    assert prices.cost(asker.used) == Decimal("0.0011")


@pytest.mark.parametrize("usage", [None, (-5, 3), ("many", 3), (2.5, 3), (None, None)])
def test_without_a_usage_report_tokens_are_marked_as_estimated(
    usage: Any, model: ScriptedModel, make_asker: MakeAsker, exchanges: list[Exchange]
) -> None:
    model.says("sum", Says({"total": 4}, usage=usage))
    asker = make_asker()

    asker.ask(question())

    assert asker.used.estimated
    assert asker.used.input > 100
    assert 0 < asker.used.output < 10
    assert exchanges[0].estimated


def test_a_budget_limits_an_answer_and_stops_the_next_request(model: ScriptedModel, make_asker: MakeAsker) -> None:
    model.says("sum", Says({"total": 4}, usage=(2_000, 900)))
    asker = make_asker(budget=Budget(3_000))

    asker.ask(question())
    with pytest.raises(EngineError) as caught:
        asker.ask(question())

    assert caught.value.code == "budget_reached"
    assert model.requests[0]["max_completion_tokens"] < 3_000
    assert len(model.requests) == 1


def test_an_answer_cut_off_by_the_budget_exhausts_it(model: ScriptedModel, make_asker: MakeAsker) -> None:
    model.says("sum", Says('{"total"', finish="length"))

    with pytest.raises(EngineError) as caught:
        make_asker(budget=Budget(3_000)).ask(question())

    assert caught.value.code == "budget_reached"


# --- Exchanges -------------------------------------------------------------------------------------------------------


def test_exchanges_are_recorded_without_secrets(
    model: ScriptedModel, make_asker: MakeAsker, exchanges: list[Exchange]
) -> None:
    github = "ghp_" + "a1" * 18
    model.says("sum", f'{{"total": "{KEY} hunter2-of-the-project {github}"}}', {"total": 4})
    asker = make_asker(secrets=[("DATABASE_PASSWORD", "hunter2-of-the-project")])

    asker.ask(question(parts=(Part("request", f"password hunter2-of-the-project, key {github}"),)))

    kept = "".join(exchange.model_dump_json() for exchange in exchanges)
    assert all(secret not in kept for secret in (KEY, "hunter2", github))
    assert "[secret DATABASE_PASSWORD]" in kept
    assert exchanges[0].stage == "intent"
    assert (exchanges[0].seconds or -1) >= 0
    assert [message.role for message in exchanges[0].messages] == ["system", "user"]


def test_every_error_code_has_a_hint() -> None:
    for code, entry in CATALOGUE.items():
        error = EngineError(code, "a\x00b\nc" + "x" * 1000).as_json()
        assert error["hint"] == entry.hint
        assert entry.message.endswith(".")
        assert len(error["detail"]) <= 400
        assert "\n" not in error["detail"]
