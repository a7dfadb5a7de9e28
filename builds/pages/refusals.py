"""What the actions refuse, told at the top of the page that comes next. Their texts say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib import messages
from django.http import HttpRequest

from builds.actions import NoOutsideBuilder, NotFinished, NothingToBuild
from builds.sites.publishing import NotServable, SlugRefused
from builds.webhooks.endpoints import IsDisabled, TooManyEndpoints
from chef.jobs.capacity import OwnerQueueFullError, QueueFullError
from projects.environment import EnvironmentRefused
from projects.files.limits import UploadRefused
from projects.generations.actions import DayIsSpent, GenerationUnderWay, NoModel, NotEnded, NothingToEdit
from projects.quarantine import InQuarantine

REFUSALS = (
    *(OwnerQueueFullError, QueueFullError, NotFinished, NothingToBuild, NoOutsideBuilder, NotServable, SlugRefused),
    *(DayIsSpent, NoModel, GenerationUnderWay, NothingToEdit, IsDisabled, TooManyEndpoints),
    *(EnvironmentRefused, InQuarantine, NotEnded, UploadRefused),
)


def reasons(refused: Exception) -> list[str]:
    """The sentences that a refusal is made of."""
    if isinstance(refused, UploadRefused):
        return [f"{fault.path}: {fault.detail}" if fault.path else fault.detail for fault in refused.faults]
    if isinstance(refused, EnvironmentRefused):
        return [f"{fault.name}: {fault.detail}" if fault.name else fault.detail for fault in refused.faults]
    return [str(refused)]


@contextmanager
def told(request: HttpRequest) -> Iterator[None]:
    """Tells a refusal of what is done within, instead of raising it."""
    try:
        yield
    except REFUSALS as refused:
        for reason in reasons(refused):
            messages.error(request, reason)
