"""Quarantine: nothing of a project may run until staff release it. Stopping its builds is up to builds.actions."""

from django.contrib.auth.models import User

from chef.refusals import RefusalError
from projects.models import Project, Quarantine


class QuarantinedError(RefusalError):
    """Nothing of the project may be built or generated now."""

    code = "project_quarantined"

    def __init__(self) -> None:
        super().__init__(
            "The operator has put this project in quarantine: it cannot be built until it is released. "
            "Nothing from this request was stored: contact the operator."
        )


def put_in_quarantine(project: Project, *, by: User, reason: str) -> None:
    """Put a project in quarantine; if it already is, replace the reason."""
    Quarantine.objects.update_or_create(project=project, defaults={"by": by, "reason": reason})


def refuse_in_quarantine(project: Project) -> None:
    """Raises QuarantinedError."""
    if Quarantine.objects.filter(project=project).exists():
        raise QuarantinedError
