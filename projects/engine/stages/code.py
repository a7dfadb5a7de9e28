"""The third stage: the planned files, each requested on its own, several at once, so that a bad answer costs one file.

A file is requested once the files it uses are written, so that the model sees them. Only the calling thread changes the
state; the others only send requests.
"""

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from projects.engine.errors import EngineError, GenerationCancelledError, InvalidAnswerError
from projects.engine.limits import Limits
from projects.engine.model.asking import Asker
from projects.engine.model.questions import Document, Part, Question, Stage
from projects.engine.stages.file_checks import content_faults
from projects.engine.stages.plan import PlannedFile
from projects.engine.stages.state import State

FILES_AT_ONCE = 4
_TICK = 0.05  # the other threads' requests wait until this one has recorded them
# JSON escapes may double the length of a text.
_ESCAPED = 2


class WrittenFile(Document):
    content: str


def write_files(
    asker: Asker, state: State, limits: Limits, *, at_once: int = FILES_AT_ONCE, on_change: Callable[[], None]
) -> None:
    """Write the planned files that the state lacks; `on_change` is called after each.

    An optional file that cannot be written is recorded in `state.left_out`. When a needed one fails, or the model
    cannot be reached, no further requests are made; running ones are finished, then the first error is raised.
    """
    desk = _Desk(asker, state, limits)
    failure: EngineError | None = None
    with ThreadPoolExecutor(at_once, thread_name_prefix="engine-code") as pool:
        try:
            while desk.running or (desk.pending and not failure):
                while not failure and len(desk.running) < at_once and (file := desk.next()):
                    desk.running[pool.submit(desk.write, file)] = file
                for future in wait(desk.running, timeout=_TICK, return_when=FIRST_COMPLETED).done:
                    taken = desk.take(future)
                    failure = failure or taken
                    on_change()
                if asker.stopped():
                    raise GenerationCancelledError
        except BaseException:
            asker.stop()  # otherwise leaving the pool would wait for answers nobody needs
            raise
    asker.run_queued_calls()
    if failure:
        raise failure


class _Desk:
    """The files still to write, and those being written."""

    def __init__(self, asker: Asker, state: State, limits: Limits) -> None:
        self._asker, self._state, self._limits = asker, state, limits
        self.pending = state.missing()
        self.running: dict[Future[str], PlannedFile] = {}

    def next(self) -> PlannedFile | None:
        """The first file whose dependencies are written; in a cycle, the first file of it."""
        open_paths = {file.path for file in (*self.pending, *self.running.values())}
        ready = [file for file in self.pending if not (set(file.uses) - {file.path}) & open_paths]
        file = next(iter(ready or ([] if self.running else self.pending)), None)
        if file:
            self.pending.remove(file)
        return file

    def write(self, file: PlannedFile) -> str:
        """The file's text. Called in a thread of the pool."""
        question = Question(
            Stage.CODE,
            WrittenFile,
            self._parts(file),
            subject=file.path,
            faults=lambda answer: content_faults(file.path, answer.content, self._limits),
            max_chars=_ESCAPED * self._limits.max_file + 1_000,
        )
        return self._asker.ask(question).content

    def take(self, future: "Future[str]") -> EngineError | None:
        """Record a file's result in the state. Returns the error that ends the stage, if any."""
        file = self.running.pop(future)
        try:
            self._state.files[file.path] = future.result()
        except InvalidAnswerError as bad:
            if file.needed:
                return EngineError("file_failed", str(bad), subject=file.path)
            self._state.left_out[file.path] = str(bad)
        except EngineError as error:
            return error
        return None

    def _parts(self, file: PlannedFile) -> tuple[Part, ...]:
        request, plan = self._state.request, self._state.plan
        assert plan
        parts = [Part("request", request.prompt), Part("plan", plan.as_text())]
        written = {path: self._state.files[path] for path in file.uses if path in self._state.files}
        parts += [Part(f"finished file {path}", text, shorter="") for path, text in written.items()]
        parts.append(Part("the file to write now", f"{file.path}\n{file.purpose}"))
        return tuple(parts)
