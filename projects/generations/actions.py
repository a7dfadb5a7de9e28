"""Actions on generations, called by API, pages and admin. The work itself is in `queue` and `runner`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Sum
from django.utils import timezone

from chef.jobs.capacity import refuse_when_full
from chef.jobs.models import Status, TransitionRefusedError
from chef.refusals import RefusalError
from projects.actions import create_project
from projects.engine.errors import GenerationCancelledError
from projects.generations.queue import GENERATIONS
from projects.models import DraftFile, Generation, GenerationEvent, Project, Revision, TokensUsed
from projects.quarantine import refuse_in_quarantine

MAX_NAME_CHARS = 100


class NoModelError(RefusalError):
    """The request needs a language model, and this installation has none."""

    code, status = "no_model", 422

    def __init__(self) -> None:
        super().__init__(
            "This installation has no language model, so it cannot change a project: send the changed files as a new "
            "revision, or have the operator set AI_API_KEY."
        )


class NothingToEditError(RefusalError):
    """The project has no files to change."""

    code = "nothing_to_edit"

    def __init__(self) -> None:
        super().__init__("The project has no files yet: generate a new project, or send files as a revision.")


class GenerationUnderWayError(RefusalError):
    """Another generation is already changing the project."""

    code = "generation_under_way"

    def __init__(self) -> None:
        super().__init__(
            "A generation or repair of this project is in progress: wait for its end or cancel it, then try again."
        )


class DailyTokensSpentError(RefusalError):
    """The owner's daily tokens are used up. `retry_after`: seconds until the next day."""

    code, status = "day_spent", 429

    def __init__(self) -> None:
        super().__init__(
            f"Your generations have used all {settings.AI_OWNER_TOKENS_PER_DAY:,} tokens of today (UTC): "
            "try again tomorrow, or ask the operator for more.",
            retry_after=round((_midnight() - timezone.now()).total_seconds()) + 1,
        )


class GenerationNotEndedError(RefusalError):
    """Only a generation that failed or was cancelled can be continued."""

    code = "generation_not_ended"

    def __init__(self, generation: Generation) -> None:
        wait = "it has made its files" if generation.status == Status.COMPLETED else "wait for its end, or cancel it"
        super().__init__(f"Only a generation that failed or was cancelled can be retried: {wait}.")


@dataclass(frozen=True)
class GenerationOptions:
    """Options of a generation: `analysis` and `tests` enable stages, `auto_fix` enables repairs of failed builds."""

    analysis: bool = True
    tests: bool = True
    auto_fix: bool = True
    max_tokens: int | None = None  # None: the installation's maximum


@dataclass(frozen=True)
class FailedBuild:
    """A repair's input: the verdict as in the API, the end of the log, and summaries of earlier repairs."""

    verdict: Mapping[str, Any]
    log: str
    tried: Sequence[str] = ()


def has_model() -> bool:
    """Whether this installation has a language model; without one, new projects are made from starters."""
    return bool(settings.AI_PROVIDER != "starter")


@transaction.atomic
def request_generation(
    *, by: User, prompt: str, name: str = "", strategy: Mapping[str, Any], options: GenerationOptions
) -> Generation:
    """Generate a new project from a prompt. Raises QueueFullError, OwnerQueueFullError and DailyTokensSpentError."""
    project = create_project(by=by, name=name or _name_of(prompt))
    generation = _prepared(project, Generation.Kind.NEW, prompt, options)
    generation.strategy = {**strategy}
    return _queued(generation, by=by)


@transaction.atomic
def request_edit(project: Project, *, by: User, prompt: str, options: GenerationOptions) -> Generation:
    """Change the project's last revision by a prompt, as a new revision.

    Raises NoModelError, NothingToEditError, GenerationUnderWayError, QuarantinedError, QueueFullError,
    OwnerQueueFullError and DailyTokensSpentError.
    """
    refuse_in_quarantine(project)
    if not has_model():
        raise NoModelError
    base = project.revisions.order_by("-number").first()
    if base is None:
        raise NothingToEditError
    generation = _prepared(project, Generation.Kind.EDIT, prompt, options)
    generation.base, generation.strategy = base, base.strategy
    return _queued(generation, by=by)


@transaction.atomic
def retry_generation(generation: Generation, *, by: User, options: GenerationOptions | None = None) -> Generation:
    """Continue a failed or cancelled generation as a new one. `options` None: the same as before.

    Raises GenerationNotEndedError, and what request_generation raises; GenerationUnderWayError and QuarantinedError.
    """
    refuse_in_quarantine(generation.project)
    if generation.status not in (Status.FAILED, Status.CANCELLED) or generation.kind == Generation.Kind.REPAIR:
        raise GenerationNotEndedError(generation)
    options = options or GenerationOptions(
        generation.analysis, generation.tests, generation.auto_fix, generation.max_tokens
    )
    again = _prepared(generation.project, Generation.Kind(generation.kind), generation.prompt, options)
    again.strategy, again.state, again.stage = generation.strategy, generation.state, generation.stage
    again.retry_of = generation
    again.base = generation.project.revisions.order_by("-number").first() if generation.base else None
    _queued(again, by=by)
    drafts = generation.drafts.values_list("path", "content", "size")
    DraftFile.objects.bulk_create(
        DraftFile(generation=again, path=path, content=content, size=size) for path, content, size in drafts
    )
    return again


@transaction.atomic
def request_repair(root: Generation, base: Revision, failed: FailedBuild) -> Generation:
    """Repair a revision whose build failed, as a new one; queue limits do not apply. Raises GenerationUnderWayError."""
    generation = Generation(
        project=root.project,
        owner=root.owner,
        kind=Generation.Kind.REPAIR,
        prompt=root.prompt,
        strategy=base.strategy,
        analysis=False,
        tests=root.tests,
        auto_fix=True,
        max_tokens=root.max_tokens,
        base=base,
        root=root,
        failed=asdict(failed),
    )
    return _saved(generation, {"status": Status.QUEUED})


def _prepared(project: Project, kind: Generation.Kind, prompt: str, options: GenerationOptions) -> Generation:
    return Generation(
        project=project,
        owner=project.owner,
        kind=kind,
        prompt=prompt,
        analysis=options.analysis,
        tests=options.tests,
        auto_fix=options.auto_fix,
        max_tokens=min(options.max_tokens or settings.AI_MAX_TOKENS, settings.AI_MAX_TOKENS),
    )


def _queued(generation: Generation, *, by: User) -> Generation:
    if tokens_left_today(generation.owner_id) == 0:
        raise DailyTokensSpentError
    refuse_when_full(GENERATIONS, generation.owner_id)
    return _saved(generation, {"status": Status.QUEUED, "by": by.get_username()})


def _saved(generation: Generation, event: dict[str, Any]) -> Generation:
    try:
        with transaction.atomic():
            generation.save(force_insert=True)
    except IntegrityError as error:
        if Generation.objects.active().filter(project=generation.project).exists():
            raise GenerationUnderWayError from error
        raise
    generation.events.create(kind=GenerationEvent.Kind.STATUS, data=event)
    GENERATIONS.wake_up_on_commit()
    return generation


def _name_of(prompt: str) -> str:
    """The default name of a project: the start of the prompt's first line, cut at a word."""
    line = next((line for line in map(str.strip, prompt.splitlines()) if line), "project")
    if len(line) <= MAX_NAME_CHARS:
        return line
    return line[:MAX_NAME_CHARS].rpartition(" ")[0] or line[:MAX_NAME_CHARS]


def cancel_generation(generation: Generation, *, by: User) -> bool:
    """Cancel a generation that has not ended. False if it has, and nothing changes then.

    Its worker notices within a second.
    """
    while not generation.is_terminal:
        error = GenerationCancelledError(f"Cancelled by {by.get_username()}.").as_json()
        try:
            generation.transition_to(Status.CANCELLED, error=error)
        except TransitionRefusedError:
            generation.refresh_from_db()
        else:
            return True
    return False


# --- Tokens ------------------------------------------------------------------------------------------------------


def tokens_left(generation: Generation) -> int:
    """The tokens a generation may still use: of its own limit, shared with its repairs, and its owner's daily limit."""
    root = generation.root or generation
    family = [root, *root.repairs.all()]
    left = max(root.max_tokens - sum(one.input_tokens + one.output_tokens for one in family), 0)
    today = tokens_left_today(generation.owner_id)
    return left if today is None else min(left, today)


def tokens_left_today(owner: int) -> int | None:
    """The tokens an owner's generations may still use until midnight (UTC); None: no limit."""
    if not settings.AI_OWNER_TOKENS_PER_DAY:
        return None
    rows = TokensUsed.objects.filter(owner=owner, day=timezone.now().date())
    used = rows.aggregate(total=Sum("tokens"))["total"] or 0
    return int(max(settings.AI_OWNER_TOKENS_PER_DAY - used, 0))


def _midnight() -> datetime:
    return timezone.now().replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
