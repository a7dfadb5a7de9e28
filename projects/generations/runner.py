"""One generation, from its claim to a revision: what the engine asks of a model and says on the way is kept here.

A generation goes on where an earlier attempt of it stopped: the state and the files that were written are in the
database, and so is each request to the model from before it is sent. Knows nothing of builds: whoever calls says what
is to follow a revision.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from chef.jobs.leases import Lease, LeaseLostError
from chef.jobs.models import Status
from chef.jobs.pubsub import publish_change
from chef.jobs.queues import Fault
from chef.jobs.reaping import after_fault
from projects.actions import add_revision
from projects.engine.errors import EngineError
from projects.engine.limits import Limits
from projects.engine.model.asking import Asker
from projects.engine.model.budget import Budget, Prices, Usage
from projects.engine.model.client import Endpoint, ModelClient, Patience
from projects.engine.model.exchanges import Exchange as Told
from projects.engine.pipeline import Generated, generate
from projects.engine.repairs.edit import edit
from projects.engine.repairs.fingerprints import Failure
from projects.engine.repairs.patches import Patched
from projects.engine.repairs.repair import repair
from projects.engine.request import WRITTEN_RUNTIMES, Request
from projects.engine.stages.state import State
from projects.engine.starters import choose, fill
from projects.environment import EnvironmentUnreadable, environment_for
from projects.files.limits import InvalidUploadError
from projects.files.paths import NewFile
from projects.generations.actions import tokens_left, tokens_left_today
from projects.generations.queue import GENERATIONS
from projects.models import DraftFile, Exchange, Generation, GenerationEvent, Project, Revision, TokensUsed

logger = logging.getLogger(__name__)

STARTER = "starter"
FollowUp = Callable[[Generation, Revision], None]


@dataclass(frozen=True)
class Made:
    """What the engine came to: all files of the revision, a sentence for the user, and the diff of a change."""

    files: list[NewFile]
    message: str
    diff: str = ""


class Run:
    """One attempt at one generation, under its lease. `follow_up` is called in the transaction of the revision."""

    def __init__(self, lease: Lease[Generation], follow_up: FollowUp) -> None:
        self.lease = lease
        self.generation = lease.job
        self.follow_up = follow_up
        self.is_by_starter = settings.AI_PROVIDER == STARTER

    def execute(self) -> None:
        """Write the files to a terminal status, or give the generation back.

        Raises LeaseLostError when it is not ours any more.
        """
        try:
            model = "" if self.is_by_starter else settings.AI_MODEL
            with self.lease.writing(provider=settings.AI_PROVIDER, model=model):
                pass
            self.finish(self.by_starter() if self.is_by_starter else self.by_model())
        except EngineError as error:
            self.fail(error)
        except LeaseLostError:
            raise
        except Exception as fault:
            self.retry_later(fault)

    # --- With and without a model --------------------------------------------------------------------------------

    def by_starter(self) -> Made:
        """A finished project that fits the prompt's words. Raises EngineError where only a model would do."""
        if self.generation.kind != Generation.Kind.NEW:
            raise EngineError("no_model")
        prompt = self.generation.prompt
        try:
            choice = choose(prompt, runtime=self.generation.strategy.get("runtime"))
        except ValueError as error:
            raise EngineError("no_model", str(error)) from error
        name = self.generation.project.name
        files = fill(choice.starter, prompt=prompt, name="" if prompt.startswith(name) else name)
        with self.lease.writing(stage=STARTER):
            self.generation.events.create(kind=GenerationEvent.Kind.STAGE, data={"stage": STARTER})
        return Made(files, f"Made from a starter, without a language model. {choice.because}")

    def by_model(self) -> Made:
        book = _Book(self.lease)
        endpoint = Endpoint(
            settings.AI_BASE_URL,
            settings.AI_API_KEY,
            model=settings.AI_MODEL,
            max_output=settings.AI_MAX_OUTPUT,
        )
        patience = Patience(
            between=settings.AI_SILENCE_SECONDS, whole=settings.AI_ANSWER_SECONDS, tries=settings.AI_TRIES
        )
        with ModelClient(endpoint, patience) as client:
            asker = Asker(
                client,
                budget=self.budget(),
                on_request=book.open,
                on_exchange=book.close,
                is_cancelled=lambda: self.lease.must_stop,
                secrets=self.secrets(),
            )
            try:
                if self.generation.kind == Generation.Kind.NEW:
                    return self.new_app(asker)
                return self.changed_app(asker)
            finally:
                asker.run_queued_calls()  # results of requests that were running when something ended it

    def new_app(self, asker: Asker) -> Made:
        drafts = _Drafts(self.lease)
        made = generate(
            self.request(), asker=asker, limits=limits(), on_progress=drafts.keep, state=drafts.state(self.request())
        )
        if not made.complete:
            raise self.why(made.stopped)
        return Made([NewFile(path, content) for path, content in made.files.items()], _told(made))

    def changed_app(self, asker: Asker) -> Made:
        generation = self.generation
        assert generation.base
        before = {file.path: file for file in generation.base.files.all()}
        files = {path: bytes(file.content) for path, file in before.items()}
        stage = generation.kind
        with self.lease.writing(stage=stage):
            generation.events.create(kind=GenerationEvent.Kind.STAGE, data={"stage": stage})
        try:
            patched = self.patched(asker, files)
        except EngineError as error:
            raise self.why(error) from error
        new = [
            NewFile(path, content, executable=path in before and before[path].executable)
            for path, content in patched.files.items()
        ]
        return Made(new, patched.summary, patched.diff)

    def patched(self, asker: Asker, files: Mapping[str, bytes]) -> Patched:
        failed = self.generation.failed
        if failed is None:
            return edit(asker, self.request(), files, limits())
        return repair(
            asker,
            Failure.from_json(failed["verdict"]),
            files,
            limits(),
            prompt=self.generation.prompt,
            log=failed["log"],
            tried=failed["tried"],
        )

    # --- What the engine is given --------------------------------------------------------------------------------

    def request(self) -> Request:
        generation = self.generation
        runtime = generation.strategy.get("runtime")
        is_written = runtime in WRITTEN_RUNTIMES  # a project that is edited may be of another runtime
        return Request(
            prompt=generation.prompt,
            name=generation.project.name,
            runtime=runtime if is_written else None,
            version=generation.strategy.get("version") if is_written else None,
            analysis=generation.analysis,
            tests=generation.tests,
        )

    def budget(self) -> Budget:
        self.generation.refresh_from_db(fields=["input_tokens", "output_tokens"])
        used = Usage(input=self.generation.input_tokens, output=self.generation.output_tokens)
        return Budget(used.total + tokens_left(self.generation), used=used)

    def secrets(self) -> Iterable[tuple[str, str]]:
        try:
            return environment_for(self.generation.project).secrets
        except EnvironmentUnreadable:
            return ()  # nobody can read them, so nobody can have put them into a file

    def why(self, error: EngineError | None) -> EngineError:
        """What ended the work, and if it was the budget, whose."""
        assert error
        if error.code == "budget_reached" and tokens_left_today(self.generation.owner_id) == tokens_left(
            self.generation
        ):
            return EngineError("day_spent", error.detail)
        return error

    # --- The end -------------------------------------------------------------------------------------------------

    def finish(self, made: Made) -> None:
        """The revision, the end of the generation, and what follows from both, all or nothing."""
        generation = self.generation
        with self.project_locked(), self.lease.writing():
            last = generation.project.revisions.order_by("-number").first()
            if (last and last.pk) != generation.base_id:
                raise EngineError("project_changed")
            revision = self.revision_of(made)
            self.lease.end(Status.COMPLETED, revision=revision, message=made.message, diff=made.diff)
            generation.drafts.all().delete()
            self.follow_up(generation, revision)

    @contextmanager
    def project_locked(self) -> Iterator[None]:
        """A transaction with the project's row, which is always locked before a generation's."""
        with transaction.atomic():
            Project.objects.select_for_update().filter(pk=self.generation.project_id).first()
            yield

    def revision_of(self, made: Made) -> Revision:
        generation = self.generation
        is_repair = generation.kind == Generation.Kind.REPAIR
        try:
            return add_revision(
                generation.project,
                files=made.files,
                dependencies=generation.base.dependencies if generation.base else {},
                strategy=generation.strategy,
                origin=Revision.Origin.REPAIR if is_repair else Revision.Origin.GENERATION,
            )
        except InvalidUploadError as refused:
            raise EngineError("files_refused", str(refused)) from refused

    def fail(self, error: EngineError) -> None:
        if self.lease.lost.is_set():
            raise LeaseLostError(f"{self.lease} is no longer ours") from error
        if self.lease.interrupted.is_set():
            # This worker is stopping: the generation goes on elsewhere, and no attempt is counted against it.
            self.lease.end(Status.QUEUED, available_at=timezone.now())
            GENERATIONS.wake_up()
            return
        self.lease.end(Status.FAILED, error=error.as_json())

    def retry_later(self, fault: Exception) -> None:
        """A fault of ours: the generation is tried again, by itself, until its attempts are spent."""
        logger.warning("%s: attempt %s faulted", self.lease, self.lease.fence, exc_info=fault)
        self.generation.refresh_from_db()  # a transaction that failed has left its changes on the instance
        status, changes = after_fault(GENERATIONS, self.generation, Fault("internal_error", type(fault).__name__))
        self.lease.end(status, **changes)


def limits() -> Limits:
    """What a generation may produce: what an upload may have."""
    return Limits(
        max_files=settings.MAX_FILES,
        max_file=settings.MAX_FILE_BYTES,
        max_total=settings.MAX_PROJECT_BYTES,
        max_path_bytes=settings.MAX_PATH_BYTES,
        max_depth=settings.MAX_PATH_DEPTH,
    )


def _told(made: Generated) -> str:
    """What was made, and what was left out, for the user."""
    state = made.state
    assert state.plan
    sentences = [state.plan.description.strip() or state.plan.name]
    sentences += [f"Left out: {path} ({reason})" for path, reason in state.left_out.items()]
    if state.tests_left_out:
        sentences.append(f"There are no tests: {state.tests_left_out}")
    if made.stopped:
        sentences.append(f"It ended early: {made.stopped}")
    return "\n".join(sentences)


# --- What is kept on the way -------------------------------------------------------------------------------------


class _Drafts:
    """Keeps the state and the files as they come, each file once."""

    def __init__(self, lease: Lease[Generation]) -> None:
        self._lease, self._generation = lease, lease.job
        self._stage = ""
        self._kept: set[str] = set()

    def state(self, request: Request) -> State | None:
        """What an earlier attempt has left, to go on from."""
        if self._generation.state is None:
            return None
        files = dict(self._generation.drafts.values_list("path", "content"))
        self._kept = set(files)
        self._stage = self._generation.stage
        return State.model_validate({**self._generation.state, "request": request, "files": files})

    def keep(self, state: State) -> None:
        new = {path: text for path, text in state.files.items() if path not in self._kept}
        events = [self._event("stage", stage=state.stage)] if state.stage != self._stage else []
        sizes = {path: len(text.encode()) for path, text in new.items()}
        events += [self._event("file", path=path, size=size) for path, size in sizes.items()]
        document = state.model_dump(mode="json", exclude={"files", "request"})
        with self._lease.writing(stage=state.stage, state=document):
            DraftFile.objects.bulk_create(
                DraftFile(generation=self._generation, path=path, content=text, size=sizes[path])
                for path, text in new.items()
            )
            GenerationEvent.objects.bulk_create(events)
            if events:
                transaction.on_commit(partial(publish_change, self._generation.pk))
        self._kept.update(new)
        self._stage = state.stage

    def _event(self, kind: str, **data: Any) -> GenerationEvent:
        return GenerationEvent(generation=self._generation, kind=kind, data=data)


@dataclass
class _Book:
    """Keeps every exchange, and counts its tokens: as an estimate while it is under way, then as they were reported."""

    lease: Lease[Generation]
    _opened: dict[Any, tuple[Told, date]] = field(default_factory=dict)

    def open(self, told: Told) -> None:
        """Before a request is sent. Raises LeaseLostError, and EngineError when the owner's day is spent."""
        generation = self.lease.job
        if tokens_left_today(generation.owner_id) == 0:
            raise EngineError("day_spent")
        usage, now = _usage(told), timezone.now()
        with self.lease.writing(**_more(usage)):
            Exchange.objects.create(
                id=told.id,
                generation=generation,
                stage=told.stage,
                subject=told.subject[:1000],
                attempt=told.attempt,
                model=told.model[:100],
                messages=[{"role": each.role, "content": _storable(each.content)} for each in told.messages],
                input_tokens=told.input_tokens,
                is_estimated=True,
                cost=_prices().cost(usage),
                created_at=now,
            )
            self._count(usage.total, now.date())
        self._opened[told.id] = told, now.date()

    def close(self, told: Told) -> None:
        """When something has come of it. Spent is spent: this is written even when the lease is gone."""
        opened, day = self._opened.pop(told.id)
        usage, before = _usage(told), _usage(opened)
        with transaction.atomic():
            Generation.objects.filter(pk=self.lease.job.pk).update(**_more(usage, before))
            Exchange.objects.filter(pk=told.id).update(
                answer=_storable(told.answer),
                input_tokens=told.input_tokens,
                output_tokens=told.output_tokens,
                is_estimated=told.estimated,
                cost=_prices().cost(usage),
                seconds=told.seconds,
                error=told.error,
                detail=_storable(told.detail)[:1000],
            )
            self._count(usage.total - before.total, day)

    def _count(self, tokens: int, day: date) -> None:
        TokensUsed.objects.get_or_create(owner_id=self.lease.job.owner_id, day=day)
        TokensUsed.objects.filter(owner=self.lease.job.owner_id, day=day).update(tokens=F("tokens") + tokens)


def _usage(told: Told) -> Usage:
    return Usage(input=told.input_tokens, output=told.output_tokens, estimated=told.estimated)


def _prices() -> Prices:
    return Prices(Decimal(str(settings.AI_PRICE_INPUT)), Decimal(str(settings.AI_PRICE_OUTPUT)))


def _more(usage: Usage, before: Usage | None = None) -> dict[str, Any]:
    """Columns of a generation, raised by a usage, less what was counted for it before."""
    before = before or Usage()
    return {
        "input_tokens": F("input_tokens") + (usage.input - before.input),
        "output_tokens": F("output_tokens") + (usage.output - before.output),
        "cost": F("cost") + (_prices().cost(usage) - _prices().cost(before)),
    }


def _storable(text: str) -> str:
    """The text as every database takes it: without NULs and halves of characters."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
