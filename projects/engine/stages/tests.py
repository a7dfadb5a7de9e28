"""The last stage: tests for the written app. They are optional, so a bad answer does not end the generation."""

from collections.abc import Mapping

from projects.engine.limits import Limits, sentences
from projects.engine.model.asking import Asker
from projects.engine.model.questions import Document, Part, Question, Stage
from projects.engine.request import Request
from projects.engine.stages.dependencies import Dependency, dependency_faults
from projects.engine.stages.file_checks import content_faults
from projects.engine.stages.plan import LOCK_FILES, MANIFESTS, Plan

MAX_TEST_FILES = 20


class TextFile(Document):
    path: str
    content: str


class Suite(Document):
    """`command` runs the tests, as the manifest's script `test`."""

    files: list[TextFile]
    dependencies: list[Dependency]
    command: str


def write_suite(asker: Asker, request: Request, plan: Plan, files: Mapping[str, str], limits: Limits) -> Suite:
    """Request the tests. Raises InvalidAnswerError when no usable ones were written."""
    parts = [Part("request", request.prompt), Part("plan", plan.as_text())]
    parts += [Part(f"finished file {path}", text, shorter="") for path, text in files.items()]

    def faults(suite: Suite) -> list[str]:
        return suite_faults(suite, plan, files, limits)

    return asker.ask(Question(Stage.TESTS, Suite, tuple(parts), faults=faults))


def suite_faults(suite: Suite, plan: Plan, files: Mapping[str, str], limits: Limits) -> list[str]:
    """Errors in a test suite, as sentences for the model."""
    if not 0 < len(suite.files) <= MAX_TEST_FILES:
        return [f"There are {len(suite.files):,} test files: write between one and {MAX_TEST_FILES}."]
    faults = [
        f"{file.path}: the file exists already; tests must be new files."
        for file in suite.files
        if file.path in files or file.path in MANIFESTS | LOCK_FILES
    ]
    paths = [*files, *(file.path for file in suite.files)]
    if refused := limits.faults((path, 0) for path in paths):
        faults.append(sentences(refused))
    for file in suite.files:
        faults += content_faults(file.path, file.content, limits)
    if not suite.command.isprintable():
        faults.append("The command is more than one line.")
    return [*faults, *dependency_faults(plan.runtime, suite.dependencies)]
