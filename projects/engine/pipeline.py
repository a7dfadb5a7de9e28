"""From a prompt to an app's files: the stages in order. A resumed generation does not repeat finished stages.

Where to look next: `stages.intent`, `stages.plan`, `stages.code` and `stages.tests`, each with its prompt in
`model/prompts/`; `model.asking` sends their questions to the model; `repairs.edit` and `repairs.repair` change
existing files.
"""

from collections.abc import Callable
from dataclasses import dataclass

from projects.engine.errors import EngineError, InvalidAnswerError
from projects.engine.limits import Limits
from projects.engine.model.asking import Asker
from projects.engine.model.budget import Usage
from projects.engine.model.questions import Stage
from projects.engine.request import Request
from projects.engine.stages.code import FILES_AT_ONCE, write_files
from projects.engine.stages.intent import find_intent
from projects.engine.stages.manifests import manifest
from projects.engine.stages.plan import make_plan
from projects.engine.stages.state import State
from projects.engine.stages.tests import write_suite

NO_RUNNER = "A static site has no way to run tests."

Progress = Callable[[State], None]


@dataclass(frozen=True)
class Generated:
    """The result of a generation.

    `complete`: all needed files were written, so the app can be built; otherwise `files` is what was written so far.
    `stopped` is set when the budget or the owner's daily limit ended the generation.
    """

    files: dict[str, bytes]
    complete: bool
    stopped: EngineError | None
    state: State
    used: Usage


def generate(
    request: Request,
    *,
    asker: Asker,
    limits: Limits,
    on_progress: Progress,
    state: State | None = None,
    files_at_once: int = FILES_AT_ONCE,
) -> Generated:
    """Write an app. `state` is that of an earlier run, to resume; `on_progress` gets it each time it has grown.

    An exhausted budget ends it with what there is. Raises EngineError for everything else; the last state passed to
    `on_progress` is then how far it got.
    """
    begun = state.model_copy(deep=True) if state else State(request=request)
    run = _Run(asker, limits, begun, on_progress, files_at_once)
    stopped: EngineError | None = None
    try:
        run.all_stages()
    except EngineError as error:
        run.report_progress()  # include what the failed request used
        if error.code not in ("budget_reached", "day_spent"):
            raise
        stopped = error
    return run.result(stopped)


class _Run:
    def __init__(self, asker: Asker, limits: Limits, state: State, on_progress: Progress, files_at_once: int) -> None:
        self._asker, self._limits, self._state = asker, limits, state
        self._on_progress, self._files_at_once = on_progress, files_at_once

    def all_stages(self) -> None:
        state, asker, limits = self._state, self._asker, self._limits
        if state.request.analysis and not state.intent:
            self.enter(Stage.INTENT)
            state.intent = find_intent(asker, state.request)
        if not state.plan:
            self.enter(Stage.PLAN)
            state.plan = make_plan(asker, state.request, state.intent, limits)
        if state.missing():
            self.enter(Stage.CODE)
            write_files(asker, state, limits, at_once=self._files_at_once, on_change=self.report_progress)
        limits.check(self.files())
        if state.request.tests and not state.suite and not state.tests_left_out:
            self.enter(Stage.TESTS)
            self.write_tests()
        self.report_progress()

    def write_tests(self) -> None:
        state = self._state
        assert state.plan
        if state.plan.runtime == "static":
            state.tests_left_out = NO_RUNNER
            return
        try:
            state.suite = write_suite(self._asker, state.request, state.plan, state.files, self._limits)
            self._limits.check(self.files())
        except EngineError as error:
            if not isinstance(error, InvalidAnswerError) and error.code != "files_refused":
                raise
            state.suite, state.tests_left_out = None, str(error)

    def enter(self, stage: Stage) -> None:
        self._state.stage = stage.value
        self.report_progress()

    def report_progress(self) -> None:
        """Report progress with a copy of the state, because the state goes on changing."""
        self._state.used = self._asker.used
        self._on_progress(self._state.model_copy(deep=True))

    def files(self) -> dict[str, bytes]:
        """All files, with the tests and the manifest."""
        state = self._state
        assert state.plan
        texts = dict(state.files)
        if state.suite:
            texts |= {file.path: file.content for file in state.suite.files}
        texts |= manifest(state.plan, state.suite, texts)
        return {path: text.encode() for path, text in texts.items()}

    def result(self, stopped: EngineError | None) -> Generated:
        state = self._state
        missing = [file for file in state.missing() if file.needed]
        complete = state.plan is not None and not missing
        files = self.files() if complete else {path: text.encode() for path, text in state.files.items()}
        return Generated(files, complete, stopped, state, self._asker.used)
