"""The second stage: which files the app has, what each is for, and what it depends on.

The manifest (package.json, requirements.txt, pyproject.toml) is not a planned file: `manifests` writes it from the
structured parts of the plan.
"""

import re
from collections.abc import Sequence

from projects.engine.errors import EngineError, InvalidAnswerError
from projects.engine.limits import Limits, sentences
from projects.engine.model.asking import Asker
from projects.engine.model.questions import Document, Part, Question, Stage
from projects.engine.request import Request, Runtime
from projects.engine.stages.dependencies import Dependency, dependency_faults
from projects.engine.stages.intent import Intent

# Written by the engine, and lock files, which only a package manager can write.
MANIFESTS = frozenset({"package.json", "requirements.txt", "requirements-dev.txt", "pyproject.toml"})
LOCK_FILES = frozenset({"package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "uv.lock"})
MAX_SCRIPTS = 40
MAX_COMMAND_CHARS = 500


class PlannedFile(Document):
    """`uses`: paths of planned files that it imports. `needed`: without it there is no app."""

    path: str
    purpose: str
    uses: list[str]
    needed: bool


class Script(Document):
    name: str
    command: str


class Plan(Document):
    """`design` is what all files must agree on: data, names, routes, styles.

    `package`: a Python project that is built into a wheel. `commonjs`: a Node project without ES modules.
    """

    name: str
    description: str
    runtime: Runtime
    design: str
    files: list[PlannedFile]
    dependencies: list[Dependency]
    scripts: list[Script]
    package: bool
    commonjs: bool

    def to_write(self) -> list[PlannedFile]:
        """The files that the model writes."""
        return [file for file in self.files if file.path not in MANIFESTS | LOCK_FILES]

    def as_text(self) -> str:
        """The plan in the form that later stages read."""
        return self.model_dump_json(indent=1)


def make_plan(asker: Asker, request: Request, intent: Intent | None, limits: Limits) -> Plan:
    """Request the plan. Raises EngineError `invalid_plan` when the second one is invalid too."""
    parts = [Part("request", request.prompt), Part("strategy", request.strategy_text())]
    if intent:
        parts.append(Part("intent", intent.as_text()))

    def faults(plan: Plan) -> list[str]:
        return plan_faults(plan, request, limits)

    question = Question(Stage.PLAN, Plan, tuple(parts), faults=faults)
    try:
        return asker.ask(question)
    except InvalidAnswerError as bad:
        if bad.code == "answer_invalid":
            raise EngineError("invalid_plan", bad.detail) from bad
        raise


def plan_faults(plan: Plan, request: Request, limits: Limits) -> list[str]:
    """Errors in a plan, as sentences for the model."""
    files = plan.to_write()
    refused = limits.faults((file.path, 0) for file in files)
    faults = [sentences(refused)] if refused else []
    if request.runtime and plan.runtime != request.runtime:
        faults.append(f"The user wants the runtime {request.runtime}, not {plan.runtime}.")
    if not any(file.needed for file in files):
        faults.append("No file is marked as needed: mark at least one.")
    if plan.runtime == "static" and not any(file.path == "index.html" for file in files):
        faults.append("A static site needs an index.html at the top.")
    return [*faults, *dependency_faults(plan.runtime, plan.dependencies), *script_faults(plan)]


def script_faults(plan: Plan) -> list[str]:
    if plan.runtime == "static":
        return ["A static site cannot have scripts: leave them out."] if plan.scripts else []
    names = [script.name for script in plan.scripts]
    faults = []
    if plan.runtime == "node" and "build" not in names:
        faults.append("A Node project needs a `build` script that writes its output to dist.")
    if len(names) > MAX_SCRIPTS or len(set(names)) < len(names):
        faults.append(f"Name at most {MAX_SCRIPTS} scripts, each once.")
    return faults + _unusable(plan.scripts)


def _unusable(scripts: Sequence[Script]) -> list[str]:
    return [
        f"The script {script.name[:60]!r} is not valid: use a short name, and a command of one line."
        for script in scripts[:MAX_SCRIPTS]
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9:_.-]{0,59}", script.name)
        or not script.command.strip()
        or len(script.command) > MAX_COMMAND_CHARS
        or not script.command.isprintable()
    ]
