"""A generation's page: its progress while it runs, then its result and the repairs of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.db.models import Exists, OuterRef, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from builds.models import Build
from builds.pages.access import visible_generations
from builds.pages.refusals import refusals_shown
from chef.jobs.models import Status
from projects.engine.repairs.decisions import MEANING, Ending
from projects.generations import actions as generations
from projects.models import Exchange, Generation, GenerationEvent

FILES_SHOWN = 200
DIFF_LINES_SHOWN = 400
STARTER = "starter"
STAGES = {
    "intent": "Understand",
    "plan": "Plan",
    "code": "Write files",
    "tests": "Write tests",
    "edit": "Change files",
    "repair": "Mend files",
    STARTER: "Choose a starter",
}


@dataclass(frozen=True)
class Step:
    """One step of a generation. `state`: done, running, failed, skipped or waiting."""

    name: str
    state: str
    taken: timedelta | None = None


@dataclass(frozen=True)
class Try:
    """One version of the app and its build: the result of a generation or of a repair after it."""

    generation: Generation
    build: Build | None
    is_best: bool
    number: int  # of the repair; 0 is the first version


@login_required
def generation_page(request: HttpRequest, pk: UUID) -> HttpResponse:
    """One generation; 404 for other users'. With `?part=1`, only the parts that change while it runs."""
    rows = visible_generations(request).select_related("project__owner", "base", "root", "retry_of", "revision")
    generation = get_object_or_404(rows, pk=pk)
    events = list(generation.events.exclude(kind=GenerationEvent.Kind.FILE))
    family = _family(generation)
    tries = _tries(generation, family)
    builds = [each.build for each in tries if each.build]
    build = next((each.build for each in tries if each.generation.pk == generation.pk), None)
    context = {
        "generation": generation,
        "project": generation.project,
        "is_own": generation.owner_id == request.user.pk,
        "stage": STAGES.get(generation.stage, ""),
        "steps": _steps(generation, events, build),
        "build": build,
        "state": generation.state or {},
        **_files(generation),
        "tries": tries if generation.root_id is None and len(tries) > 1 else [],
        "ending": MEANING[Ending(generation.fix_ending)] if generation.fix_ending else "",
        "is_repairing": _is_repairing(generation, builds),
        "tokens": _tokens(generation, family),
        "diff": _diff(generation.diff),
        "again": generation.retries.order_by("-created_at").first() if generation.is_terminal else None,
        "can_retry": generation.status in (Status.FAILED, Status.CANCELLED) and generation.kind != "repair",
        "is_live": not generation.is_terminal,
        "waits": not generation.is_terminal
        or _is_repairing(generation, builds)
        or bool(build and not build.is_terminal),
        "last_event": events[-1].pk if events else 0,
    }
    template = "generations/part.html" if "part" in request.GET else "generations/generation.html"
    return render(request, template, context)


@login_required
@require_POST
def cancel(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Cancel the user's own generation."""
    generation = get_object_or_404(Generation, pk=pk, owner=request.user.pk)
    if generations.cancel_generation(generation, by=cast(User, request.user)):
        messages.success(request, "The generation is cancelled: it asks the model for nothing more.")
    else:
        messages.info(request, "The generation had ended before it could be cancelled.")
    return redirect("generation-page", pk)


@login_required
@require_POST
@refusals_shown("generation-page")
def retry(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Continue the user's own failed or cancelled generation as a new one; the files written so far are kept."""
    generation = get_object_or_404(Generation, pk=pk, owner=request.user.pk)
    again = generations.retry_generation(generation, by=cast(User, request.user))
    messages.success(request, "It goes on where it stopped, as a new generation.")
    return redirect("generation-page", again.pk)


# --- Its versions ------------------------------------------------------------------------------------------------


def _family(generation: Generation) -> list[Generation]:
    """The generation and its repairs, oldest first; for a repair, only itself."""
    estimated = Exchange.objects.filter(generation=OuterRef("pk"), is_estimated=True)
    rows = Generation.objects.filter(Q(pk=generation.pk) | Q(root=generation.pk)).order_by("created_at")
    rows = rows.select_related("revision", "base").defer("state", "prompt")
    return list(rows.annotate(is_estimated=Exists(estimated)))


def _tries(generation: Generation, family: Iterable[Generation]) -> list[Try]:
    builds: dict[UUID | None, Build] = {}
    for build in Build.objects.filter(generation__in=family).order_by("-number"):
        builds[build.generation_id] = build  # the first of several: the others are retries
    return [
        Try(each, builds.get(each.pk), bool(generation.best_id and each.revision_id == generation.best_id), number)
        for number, each in enumerate(family)
    ]


def _is_repairing(generation: Generation, builds: list[Build]) -> bool:
    """Whether its fix loop is still open: a build is under way, or a repair may follow."""
    is_open = generation.root_id is None and generation.auto_fix and not generation.fix_ending
    return generation.status == Status.COMPLETED and bool(builds) and is_open


def _tokens(generation: Generation, family: list[Generation]) -> dict[str, Any]:
    """Tokens and cost of a generation with its repairs, which share one token limit."""
    total = sum(each.input_tokens + each.output_tokens for each in family)
    return {
        "all": total,
        "share": min(100, round(100 * total / generation.max_tokens)) if generation.max_tokens else 0,
        "cost": sum((each.cost for each in family), Decimal()),
        "is_estimated": any(getattr(each, "is_estimated", False) for each in family),
    }


# --- Its stages and files ----------------------------------------------------------------------------------------


def _steps(generation: Generation, events: list[GenerationEvent], build: Build | None) -> list[Step]:
    """Its steps and their states: waiting, the stages of its kind, and the build."""
    began: dict[str, datetime] = {}
    for event in events:
        if event.kind == GenerationEvent.Kind.STAGE:
            began[event.data.get("stage", "")] = event.created_at
    names = _stages(generation)
    reached = names.index(generation.stage) if generation.stage in names else -1
    is_done = generation.status == Status.COMPLETED
    waited = generation.started_at - generation.created_at if generation.started_at else None
    steps = [Step("Wait", _state_of_waiting(generation), waited)]
    for at, name in enumerate(names):
        following = [began[later] for later in names[at + 1 :] if later in began]
        end = min(following, default=generation.finished_at)
        taken = end - began[name] if end and name in began and end >= began[name] else None
        is_now = at == max(reached, 0) and generation.started_at is not None
        state = "done" if is_done or at < reached else _state_now(generation) if is_now else "waiting"
        steps.append(Step(STAGES[name], "skipped" if state == "done" and name not in began else state, taken))
    return [*steps, Step("Build", _state_of_build(build))]


def _stages(generation: Generation) -> list[str]:
    if generation.kind != Generation.Kind.NEW:
        return [generation.kind]
    if generation.provider == STARTER or generation.stage == STARTER:
        return [STARTER]
    return [*(["intent"] if generation.analysis else []), "plan", "code", *(["tests"] if generation.tests else [])]


def _state_of_waiting(generation: Generation) -> str:
    if generation.started_at:
        return "done"
    return "failed" if generation.is_terminal else "running"


def _state_now(generation: Generation) -> str:
    if generation.is_terminal:
        return "failed"
    return "running" if generation.status == Status.RUNNING else "waiting"


def _state_of_build(build: Build | None) -> str:
    if build is None or build.status == Status.QUEUED:
        return "waiting"
    return {Status.COMPLETED: "done", Status.RUNNING: "running"}.get(Status(build.status), "failed")


def _files(generation: Generation) -> dict[str, Any]:
    """The files written so far with their purposes, and those still to come or left out."""
    if generation.kind != Generation.Kind.NEW:
        return {"files": [], "file_count": generation.revision.file_count if generation.revision else 0}
    state = generation.state or {}
    rows: Any = generation.revision.files if generation.revision else generation.drafts
    sizes = dict(rows.order_by("path").values_list("path", "size"))
    planned = {file["path"]: file["purpose"] for file in (state.get("plan") or {}).get("files", [])}
    left_out = state.get("left_out", {})
    coming = [path for path in planned if path not in sizes and path not in left_out] if not generation.revision else []
    files = [
        {"path": path, "size": sizes.get(path), "purpose": planned.get(path, ""), "why_not": left_out.get(path, "")}
        for path in [*sizes, *coming, *left_out]
    ]
    return {"files": files[:FILES_SHOWN], "file_count": len(sizes), "files_to_come": len(coming)}


def _diff(text: str) -> dict[str, Any]:
    """The first lines of a unified diff as (kind, line), and how many more there are."""
    lines = text.removesuffix("\n").split("\n")
    kinds = {"+": "added", "-": "removed", "@": "fold", " ": "same"}
    shown, is_head = [], True
    for line in lines[:DIFF_LINES_SHOWN]:
        # A removed line may look like a header: headers come only before a file's first hunk.
        is_head = line.startswith("diff ") or (is_head and not line.startswith("@"))
        shown.append(("head" if is_head else kinds.get(line[:1], "same"), line))
    return {"lines": shown, "more": max(len(lines) - DIFF_LINES_SHOWN, 0)}
