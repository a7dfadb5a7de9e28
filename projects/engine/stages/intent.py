"""The first stage: what the user means, in so many words. When it is switched off, the plan reads the prompt alone."""

from projects.engine.model.asking import Asker
from projects.engine.model.questions import Document, Part, Question, Stage
from projects.engine.request import Request


class Intent(Document):
    """`assumptions` are what the prompt leaves open and the app decides, told to the user."""

    summary: str
    users: str
    features: list[str]
    data: list[str]
    constraints: list[str]
    assumptions: list[str]

    def as_text(self) -> str:
        """The intent as the later stages read it."""
        return self.model_dump_json(indent=1)


def find_intent(asker: Asker, request: Request) -> Intent:
    parts = (Part("request", request.prompt), Part("wishes", request.wishes()))
    return asker.ask(Question(Stage.INTENT, Intent, parts, faults=_faults, max_chars=60_000))


def _faults(intent: Intent) -> list[str]:
    return [] if intent.summary.strip() else ["The summary is empty: say in one sentence what the app is."]
