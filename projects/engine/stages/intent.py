"""The first stage: what the user means, spelled out. When it is switched off, the plan works from the prompt alone."""

from projects.engine.model.asking import Asker
from projects.engine.model.questions import Document, Part, Question, Stage
from projects.engine.request import Request


class Intent(Document):
    """`assumptions` are decisions that the prompt leaves open; the user is shown them."""

    summary: str
    users: str
    features: list[str]
    data: list[str]
    constraints: list[str]
    assumptions: list[str]

    def as_text(self) -> str:
        """The intent in the form that later stages read."""
        return self.model_dump_json(indent=1)


def find_intent(asker: Asker, request: Request) -> Intent:
    parts = (Part("request", request.prompt), Part("strategy", request.strategy_text()))
    return asker.ask(Question(Stage.INTENT, Intent, parts, faults=_faults, max_chars=60_000))


def _faults(intent: Intent) -> list[str]:
    return [] if intent.summary.strip() else ["The summary is empty: say in one sentence what the app is."]
