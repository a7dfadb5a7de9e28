"""One generation, from its claim to a revision.

A generation continues where an earlier attempt stopped: its state and files are in the database, and each request to
the model is recorded before it is sent: see projects.generations.recording. Knows nothing of builds: the caller says
what follows a revision.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from chef.jobs.leases import Lease, LeaseLostError
from chef.jobs.models import Status
from chef.jobs.queues import Fault
from chef.jobs.reaping import after_fault
from projects.actions import add_revision
from projects.engine.errors import EngineError
from projects.engine.limits import Limits
from projects.engine.model.asking import Asker
from projects.engine.model.budget import Budget, Usage
from projects.engine.model.client import Endpoint, ModelClient, Patience
from projects.engine.pipeline import Generated, generate
from projects.engine.repairs.edit import edit
from projects.engine.repairs.fingerprints import Failure
from projects.engine.repairs.patches import Patched
from projects.engine.repairs.repair import repair
from projects.engine.request import WRITTEN_RUNTIMES, Request
from projects.engine.starters import choose, fill
from projects.environment import EnvironmentUnreadableError, environment_for
from projects.files.limits import InvalidUploadError
from projects.files.paths import NewFile
from projects.generations.actions import tokens_left, tokens_left_today
from projects.generations.queue import GENERATIONS
from projects.generations.recording import DraftRecorder, UsageRecorder
from projects.models import Generation, GenerationEvent, Project, Revision

logger = logging.getLogger(__name__)

STARTER = "starter"
FollowUp = Callable[[Generation, Revision], None]


@dataclass(frozen=True)
class Made:
    """The engine's result: all files of the revision, a sentence for the user, and the diff of an edit."""

    files: list[NewFile]
    message: str
    diff: str = ""


class Run:
    """One attempt of a generation, under its lease. `follow_up` is called in the transaction of the revision."""

    def __init__(self, lease: Lease[Generation], follow_up: FollowUp) -> None:
        self.lease = lease
        self.generation = lease.job
        self.follow_up = follow_up
        self.is_by_starter = settings.AI_PROVIDER == STARTER

    def execute(self) -> None:
        """Run to a terminal status, or hand the generation back.

        Raises LeaseLostError when the lease is lost.
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
        except Exception as error:
            self.retry_later(error)

    # --- With and without a model --------------------------------------------------------------------------------

    def by_starter(self) -> Made:
        """A starter project that matches the prompt's words. Raises EngineError if the request needs a model."""
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
        recorder = UsageRecorder(self.lease)
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
                on_request=recorder.open,
                on_exchange=recorder.close,
                is_cancelled=lambda: self.lease.must_stop,
                secrets=self.secrets(),
            )
            try:
                if self.generation.kind == Generation.Kind.NEW:
                    return self.new_app(asker)
                return self.changed_app(asker)
            finally:
                asker.run_queued_calls()  # results of requests that were running when it ended

    def new_app(self, asker: Asker) -> Made:
        drafts = DraftRecorder(self.lease)
        made = generate(
            self.request(), asker=asker, limits=limits(), on_progress=drafts.keep, state=drafts.state(self.request())
        )
        if not made.complete:
            raise self.why(made.stopped)
        return Made([NewFile(path, content) for path, content in made.files.items()], _summary_of(made))

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
        is_written = runtime in WRITTEN_RUNTIMES  # an edited project may have another runtime
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
        except EnvironmentUnreadableError:
            return ()  # unreadable here, so no file of this generation can contain them

    def why(self, error: EngineError | None) -> EngineError:
        """The error that ended the work; for a used-up budget, which one."""
        assert error
        if error.code == "budget_reached" and tokens_left_today(self.generation.owner_id) == tokens_left(
            self.generation
        ):
            return EngineError("day_spent", error.detail)
        return error

    # --- The end -------------------------------------------------------------------------------------------------

    def finish(self, made: Made) -> None:
        """Write the revision, the end of the generation, and the follow-up, all or nothing."""
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
        """A transaction that locks the project's row, which always comes before a generation's."""
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
            raise LeaseLostError(f"{self.lease} is no longer held by this worker") from error
        if self.lease.interrupted.is_set():
            # This worker is stopping: requeue the generation without counting an attempt.
            self.lease.end(Status.QUEUED, available_at=timezone.now())
            GENERATIONS.wake_up()
            return
        self.lease.end(Status.FAILED, error=error.as_json())

    def retry_later(self, fault: Exception) -> None:
        """After an infra fault, requeue the generation until its attempts are used up."""
        logger.warning("%s: attempt %s ended by an infra fault", self.lease, self.lease.fence, exc_info=fault)
        self.generation.refresh_from_db()  # a failed transaction leaves its changes on the instance
        status, changes = after_fault(GENERATIONS, self.generation, Fault("internal_error", type(fault).__name__))
        self.lease.end(status, **changes)


def limits() -> Limits:
    """The limits of a generation's output: those of an upload."""
    return Limits(
        max_files=settings.MAX_FILES,
        max_file=settings.MAX_FILE_BYTES,
        max_total=settings.MAX_PROJECT_BYTES,
        max_path_bytes=settings.MAX_PATH_BYTES,
        max_depth=settings.MAX_PATH_DEPTH,
    )


def _summary_of(made: Generated) -> str:
    """A summary for the user: what was made, and what was left out."""
    state = made.state
    assert state.plan
    sentences = [state.plan.description.strip() or state.plan.name]
    sentences += [f"Left out: {path} ({reason})" for path, reason in state.left_out.items()]
    if state.tests_left_out:
        sentences.append(f"There are no tests: {state.tests_left_out}")
    if made.stopped:
        sentences.append(f"It ended early: {made.stopped}")
    return "\n".join(sentences)
