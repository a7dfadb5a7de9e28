"""Changes an existing project from a prompt: the model sees the files and answers with a patch."""

from projects.engine.errors import EngineError, InvalidAnswerError
from projects.engine.limits import Files, Limits
from projects.engine.model.asking import Asker
from projects.engine.model.questions import Part, Question, Stage
from projects.engine.repairs.patches import Patch, Patched, apply, patch_faults
from projects.engine.repairs.selection import file_parts, named_in
from projects.engine.request import Request


def edit(asker: Asker, request: Request, files: Files, limits: Limits) -> Patched:
    """The files after the change.

    Raises EngineError: `patch_failed` when the second patch does not apply either. The files are unchanged then.
    """
    tests = "wanted: add or adapt tests for what changes" if request.tests else "not wanted: write no new tests"
    parts = [Part("request", request.prompt), Part("tests", tests)]
    parts += file_parts(files, named_in(request.prompt, files))
    return ask_for_patch(asker, Stage.EDIT, parts, files, limits)


def ask_for_patch(asker: Asker, stage: Stage, parts: list[Part], files: Files, limits: Limits) -> Patched:
    question = Question(stage, Patch, tuple(parts), faults=lambda patch: patch_faults(files, patch, limits))
    try:
        patch = asker.ask(question)
    except InvalidAnswerError as bad:
        if bad.code == "answer_invalid":
            raise EngineError("patch_failed", bad.detail) from bad
        raise
    return apply(files, patch, limits)
