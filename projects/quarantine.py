"""Projects of which nothing may run until staff release them. What runs of them, only those who know of builds stop."""

from django.contrib.auth.models import User

from chef.refusals import RefusalError
from projects.models import Project, Quarantine


class QuarantinedError(RefusalError):
    """Nothing of the project may be built or generated just now."""

    code = "project_quarantined"

    def __init__(self) -> None:
        super().__init__(
            "The operator has put this project in quarantine: nothing of it is built until it is released. "
            "Nothing has been kept of this request: ask the operator."
        )


def put_in_quarantine(project: Project, *, by: User, reason: str) -> None:
    """One that is in it stays in it, for the newer reason."""
    Quarantine.objects.update_or_create(project=project, defaults={"by": by, "reason": reason})


def refuse_in_quarantine(project: Project) -> None:
    """Raises QuarantinedError."""
    if Quarantine.objects.filter(project=project).exists():
        raise QuarantinedError
