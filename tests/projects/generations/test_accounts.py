"""Token usage and cost of generations as the endpoint reports them, and the budgets that end them."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from chef.jobs.models import Status
from chef.jobs.reaping import reap_abandoned
from projects.generations.actions import FailedBuild, request_repair, tokens_left
from projects.generations.queue import GENERATIONS, claim
from projects.generations.runner import Run
from projects.models import Exchange, Generation, Revision, TokensUsed
from tests.projects.engine.apps import patch, plan, replacement, written
from tests.projects.generations.runs import HTML, MAIN, code_of, no_follow_up, run, script_all, usage_of
from tests.scripted_model import Refuses, Says, ScriptedModel

# --- Usage -------------------------------------------------------------------------------------------------------


def test_tokens_of_refused_and_invalid_answers_are_counted(
    model: ScriptedModel, ask: Callable[..., Generation]
) -> None:
    model.says("plan", Refuses(429, headers={"Retry-After": "0"}), Says("Sure! Here it is.", usage=(90, 7)))
    model.says("plan", Says(plan(), usage=(400, 130)))
    model.says("src/main.js", Refuses(503), Says(written(MAIN), usage=(211, 23)))
    model.says("index.html", Says(written(HTML), usage=(222, 31)))

    generation = run(ask(analysis=False, tests=False))

    assert generation.status == Status.COMPLETED
    assert usage_of(generation) == (90 + 400 + 211 + 222, 7 + 130 + 23 + 31)
    assert [one.error for one in generation.exchanges.all() if one.error] == [
        "rate_limited",
        "answer_not_json",
        "endpoint_failed",
    ]


def test_unreported_tokens_are_marked_as_estimated(model: ScriptedModel, ask: Callable[..., Generation]) -> None:
    model.says("plan", Says(plan(), usage=None), Says(plan(), usage=None))
    model.says("*", written(MAIN), written(HTML))

    generation = run(ask(analysis=False, tests=False))

    into, out = usage_of(generation)
    assert into > 200
    assert out > 20
    assert [one.is_estimated for one in generation.exchanges.all()] == [True, False, False]


@pytest.mark.django_db(transaction=True)
def test_a_request_is_recorded_before_it_is_sent(model: ScriptedModel, ask: Callable[..., Generation]) -> None:
    found: list[tuple[int, int, bool]] = []

    class Looks(Says):
        def send(self, to: Any) -> None:
            row = Exchange.objects.get()
            found.append((row.input_tokens, row.generation.input_tokens, row.seconds is None and row.is_estimated))
            connection.close()
            super().send(to)

    model.says("plan", Looks(plan()))
    model.says("*", written(MAIN), written(HTML))

    run(ask(analysis=False, tests=False))

    assert len(found) == 1
    estimate, counted, is_open = found[0]
    assert estimate == counted > 0
    assert is_open


def test_a_killed_worker_s_open_request_stays_counted_as_an_estimate(
    model: ScriptedModel, ask: Callable[..., Generation]
) -> None:
    script_all(model)
    model.says("plan", plan())
    generation = ask()

    class KilledError(BaseException):
        pass

    class Dies(Run):
        def new_app(self, asker: Any) -> Any:
            keep = asker._on_exchange

            def kill(exchange: Any) -> None:
                if exchange.stage == "plan":
                    raise KilledError
                keep(exchange)

            asker._on_exchange = kill
            return super().new_app(asker)

    lease = claim("worker")
    assert lease
    with pytest.raises(KilledError):
        Dies(lease, no_follow_up).execute()
    open_row = generation.exchanges.get(stage="plan")
    assert (open_row.seconds, open_row.is_estimated) == (None, True)
    assert usage_of(generation)[0] == 100 + open_row.input_tokens
    Generation.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    assert reap_abandoned(GENERATIONS) == 1

    generation = run(generation)

    assert generation.status == Status.COMPLETED
    assert model.keys.count("intent") == 1  # finished stages are not repeated
    assert usage_of(generation) == (500 + open_row.input_tokens, 50)


# --- Budgets -----------------------------------------------------------------------------------------------------


def test_an_exhausted_budget_ends_a_generation_and_keeps_its_drafts(
    model: ScriptedModel, ask: Callable[..., Generation]
) -> None:
    model.says("plan", Says(plan(), usage=(3000, 500)))
    model.says("src/main.js", Says(written(MAIN), usage=(3000, 500)))

    generation = run(ask(analysis=False, tests=False, max_tokens=8_000))

    assert (generation.status, code_of(generation)) == (Status.FAILED, "budget_reached")
    assert sum(usage_of(generation)) == 7_000
    assert list(generation.drafts.values_list("path", flat=True)) == ["src/main.js"]
    assert not Revision.objects.exists()


def test_an_app_without_budget_for_tests_is_complete(model: ScriptedModel, ask: Callable[..., Generation]) -> None:
    model.says("plan", plan())
    model.says("src/main.js", written(MAIN))
    model.says("index.html", Says(written(HTML), usage=(7000, 500)))

    generation = run(ask(analysis=False, max_tokens=9_000))

    assert generation.status == Status.COMPLETED
    assert "ended early" in generation.message


def test_an_exhausted_day_ends_a_generation_and_refuses_the_next(
    model: ScriptedModel, ask: Callable[..., Generation], settings: Settings
) -> None:
    settings.AI_OWNER_TOKENS_PER_DAY = 8_000
    model.says("plan", Says(plan(), usage=(3000, 500)))
    model.says("src/main.js", Says(written(MAIN), usage=(4000, 500)))

    generation = run(ask(analysis=False, tests=False))

    assert (generation.status, code_of(generation)) == (Status.FAILED, "day_spent")
    assert sum(usage_of(generation)) == 8_000


def test_tokens_of_a_deleted_project_stay_counted(
    model: ScriptedModel, ask: Callable[..., Generation], settings: Settings
) -> None:
    settings.AI_OWNER_TOKENS_PER_DAY = 100_000
    script_all(model)
    generation = run(ask())

    generation.project.delete()

    assert TokensUsed.objects.get().tokens == 550


def test_repairs_share_the_token_budget_of_their_generation(
    model: ScriptedModel, ask: Callable[..., Generation]
) -> None:
    script_all(model)
    root = run(ask(max_tokens=10_000))
    assert root.revision
    verdict = {"class": "build", "code": "command_failed", "phase": "build", "message": "", "evidence": ["main.js: no"]}
    repair = request_repair(root, root.revision, FailedBuild(verdict, "the log"))
    change = replacement("src/main.js", "'Todo'", "'Todos'")
    model.says("patch", Says(patch(summary="Renamed.", replacements=[change]), usage=(900, 50)))

    repair = run(repair)

    assert (repair.status, repair.message) == (Status.COMPLETED, "Renamed.")
    assert repair.revision
    assert (repair.revision.number, repair.revision.origin) == (2, Revision.Origin.REPAIR)
    assert "+document.title = 'Todos'" in repair.diff
    assert tokens_left(root) == tokens_left(repair) == 10_000 - 550 - 950
    assert "the log" in str(model.requests[-1]["messages"])
