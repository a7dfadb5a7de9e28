"""The progress of a generation: everything needed to resume it, as one document that can be stored."""

from pydantic import BaseModel, ConfigDict, Field

from projects.engine.model.budget import Usage
from projects.engine.request import Request
from projects.engine.stages.intent import Intent
from projects.engine.stages.plan import Plan, PlannedFile
from projects.engine.stages.tests import Suite


class State(BaseModel):
    """What has been written so far. `left_out`: optional files that could not be written, and why.

    `tests_left_out` says why there are no tests although they were requested. Only the pipeline changes a state.
    """

    model_config = ConfigDict(extra="forbid")

    request: Request
    stage: str = ""
    intent: Intent | None = None
    plan: Plan | None = None
    files: dict[str, str] = Field(default_factory=dict)
    left_out: dict[str, str] = Field(default_factory=dict)
    suite: Suite | None = None
    tests_left_out: str = ""
    used: Usage = Usage()

    def missing(self) -> list[PlannedFile]:
        """Planned files that are neither written nor left out."""
        planned = self.plan.to_write() if self.plan else []
        return [file for file in planned if file.path not in self.files and file.path not in self.left_out]
