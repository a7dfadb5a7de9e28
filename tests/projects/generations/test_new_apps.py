"""Generations from their claim to a revision, and resuming one that was interrupted."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from django.db import DatabaseError, connection

from chef.jobs.leases import LeaseLostError
from chef.jobs.models import Status
from projects.generations.actions import cancel_generation, retry_generation
from projects.generations.queue import claim
from projects.generations.runner import Run
from projects.models import Exchange, Generation, Revision
from tests.projects.engine.apps import INTENT, plan, written
from tests.projects.generations.runs import HTML, MAIN, code_of, no_follow_up, run, script_all, usage_of
from tests.scripted_model import NeverEnds, Refuses, ScriptedModel

# --- A new app ---------------------------------------------------------------------------------------------------


def test_a_prompt_becomes_a_revision_and_each_request_is_recorded(
    model: ScriptedModel, ask: Callable[..., Generation]
) -> None:
    script_all(model)
    seen: list[tuple[str, int]] = []

    generation = run(ask(), lambda one, revision: seen.append((one.status, revision.number)))

    assert generation.status == Status.COMPLETED
    assert generation.revision
    assert generation.revision.origin == Revision.Origin.GENERATION
    paths = set(generation.revision.files.values_list("path", flat=True))
    assert paths == {"index.html", "src/main.js", "package.json", "tests/main.test.js"}
    assert seen == [("completed", 1)]
    assert (generation.provider, generation.model, generation.message) == (
        "openai",
        "gpt-4o",
        "A list of things to do.",
    )
    assert usage_of(generation) == (500, 50)
    assert generation.cost == (500 * Decimal("2.5") + 50 * Decimal(10)) / 1_000_000
    assert not generation.drafts.exists()
    exchanges = list(generation.exchanges.all())
    assert [one.stage for one in exchanges] == ["intent", "plan", "code", "code", "tests"]
    assert all(one.seconds is not None and not one.is_estimated and one.messages and one.answer for one in exchanges)


def test_events_report_every_stage_and_file(model: ScriptedModel, ask: Callable[..., Generation]) -> None:
    script_all(model)

    events = [(event.kind, event.data) for event in run(ask()).events.all()]

    assert [data["status"] for kind, data in events if kind == "status"] == ["queued", "running", "completed"]
    assert [data["stage"] for kind, data in events if kind == "stage"] == ["intent", "plan", "code", "tests"]
    files = [(data["path"], data["size"]) for kind, data in events if kind == "file"]
    assert files == [("src/main.js", len(MAIN)), ("index.html", len(HTML))]


def test_analysis_and_tests_can_be_switched_off(model: ScriptedModel, ask: Callable[..., Generation]) -> None:
    model.says("plan", plan())
    model.says("src/main.js", written(MAIN))
    model.says("index.html", written(HTML))

    generation = run(ask(analysis=False, tests=False))

    assert generation.status == Status.COMPLETED
    assert set(model.keys) == {"plan", "src/main.js", "index.html"}


def test_a_revision_and_its_follow_up_are_atomic(model: ScriptedModel, ask: Callable[..., Generation]) -> None:
    script_all(model)

    def fail(generation: Generation, revision: Revision) -> None:
        raise DatabaseError("no room")

    generation = run(ask(), fail)

    assert (generation.status, generation.faults) == (Status.QUEUED, 1)
    assert not Revision.objects.exists()
    assert generation.drafts.count() == 2
    generation = run(generation)  # without asking the model again
    assert generation.status == Status.COMPLETED
    assert len(model.keys) == 5


def test_the_third_internal_error_ends_a_generation(model: ScriptedModel, ask: Callable[..., Generation]) -> None:
    script_all(model)

    def fail(generation: Generation, revision: Revision) -> None:
        raise OSError("no disk")

    generation = ask()
    for _ in range(3):
        generation = run(generation, fail)

    assert (generation.status, code_of(generation)) == (Status.FAILED, "attempts_exhausted")


# --- Resuming ----------------------------------------------------------------------------------------------------


def test_another_worker_resumes_with_the_drafts(model: ScriptedModel, ask: Callable[..., Generation]) -> None:
    model.says("plan", plan())
    model.says("src/main.js", written(MAIN))
    model.says("index.html", Refuses(500), Refuses(500), written(HTML))
    generation = run(ask(analysis=False, tests=False))
    assert (generation.status, code_of(generation)) == (Status.FAILED, "endpoint_failed")
    assert list(generation.drafts.values_list("path", flat=True)) == ["src/main.js"]

    again = run(retry_generation(generation, by=generation.owner))

    assert again.status == Status.COMPLETED
    assert again.retry_of == generation
    assert model.keys.count("plan") == model.keys.count("src/main.js") == 1
    assert usage_of(again) == (100, 10)


def test_a_stopping_worker_requeues_without_counting_a_failure(
    model: ScriptedModel, ask: Callable[..., Generation]
) -> None:
    model.says("plan", NeverEnds(seconds=0.05), plan())
    model.says("*", written(MAIN), written(HTML))
    generation = ask(analysis=False, tests=False)
    lease = claim("worker")
    assert lease
    threading.Timer(0.3, lease.interrupted.set).start()

    Run(lease, no_follow_up).execute()

    generation.refresh_from_db()
    assert (generation.status, generation.faults) == (Status.QUEUED, 0)
    assert run(generation).status == Status.COMPLETED


def test_a_lost_lease_stops_requests_and_keeps_the_usage(model: ScriptedModel, ask: Callable[..., Generation]) -> None:
    model.says("intent", INTENT)
    model.says("plan", NeverEnds(seconds=0.05))
    generation = ask()
    lease = claim("worker")
    assert lease
    threading.Timer(0.5, lease.lost.set).start()  # as the heartbeat does when it finds the row cancelled

    with pytest.raises(LeaseLostError):
        Run(lease, no_follow_up).execute()

    into, _ = usage_of(generation)
    row = generation.exchanges.get(stage="plan")
    assert (row.error, row.is_estimated) == ("cancelled", True)
    assert into == 100 + row.input_tokens
    assert not Revision.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_cancel_is_noticed_within_two_seconds(model: ScriptedModel, ask: Callable[..., Generation]) -> None:
    model.says("plan", NeverEnds(seconds=0.05))
    generation = ask(analysis=False)

    def work() -> float:
        try:
            lease = claim("worker")
            assert lease
            with lease.kept_alive(), pytest.raises(LeaseLostError):
                Run(lease, no_follow_up).execute()
            return time.monotonic()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(work)
        while not Exchange.objects.exists():
            time.sleep(0.05)
        began = time.monotonic()
        assert cancel_generation(Generation.objects.get(pk=generation.pk), by=generation.owner)
        assert ended.result(10) - began < 2
    generation.refresh_from_db()
    assert (generation.status, code_of(generation)) == (Status.CANCELLED, "cancelled")
    assert not cancel_generation(generation, by=generation.owner)  # idempotent
