"""Runs generations in this process and checks their usage."""

from collections.abc import Callable

from django.utils import timezone

from chef.jobs.models import Status
from projects.generations.queue import claim
from projects.generations.runner import Run
from projects.models import Generation, Revision, TokensUsed
from tests.projects.engine.apps import INTENT, SUITE, plan, written
from tests.scripted_model import ScriptedModel

MAIN = "document.title = 'Todo'"
HTML = "<!doctype html><title>Todo</title>"


def no_follow_up(generation: Generation, revision: Revision) -> None:
    pass


def run(generation: Generation, follow_up: Callable[[Generation, Revision], None] = no_follow_up) -> Generation:
    """Claim and run the only queued generation."""
    Generation.objects.filter(pk=generation.pk, status=Status.QUEUED).update(available_at=timezone.now())
    lease = claim("worker")
    assert lease
    assert lease.job.pk == generation.pk
    Run(lease, follow_up).execute()
    generation.refresh_from_db()
    return generation


def script_all(model: ScriptedModel) -> None:
    model.says("intent", INTENT)
    model.says("plan", plan())
    model.says("src/main.js", written(MAIN))
    model.says("index.html", written(HTML))
    model.says("suite", SUITE)


def code_of(generation: Generation) -> str:
    return str((generation.error or {}).get("code"))


def usage_of(generation: Generation) -> tuple[int, int]:
    """(input, output) tokens of the exchanges; asserts that generation and daily totals agree with them."""
    generation.refresh_from_db()
    rows = list(generation.exchanges.all())
    into, out = sum(row.input_tokens for row in rows), sum(row.output_tokens for row in rows)
    assert (generation.input_tokens, generation.output_tokens) == (into, out)
    assert generation.cost == sum(row.cost for row in rows)
    day = TokensUsed.objects.filter(owner=generation.owner).first()
    assert (day.tokens if day else 0) == sum(
        one.input_tokens + one.output_tokens for one in Generation.objects.filter(owner=generation.owner)
    )
    return into, out
