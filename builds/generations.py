"""The queue's door to generations, and what follows from one: a build of the revision that it has made."""

import logging

from builds.actions import queue_promised_build
from builds.models import Build
from chef.jobs.leases import LeaseLostError
from chef.jobs.shutdown import StopSignal, worker_name
from projects.generations.queue import claim
from projects.generations.runner import Run
from projects.models import Generation, Revision

logger = logging.getLogger(__name__)


def generate_next() -> None:
    """Claim the best eligible generation, if there is one, and run it to its end."""
    stopping = StopSignal()
    lease = claim(worker_name())
    if lease is None:
        return
    with lease.kept_alive(should_hand_back=stopping.is_due):
        try:
            Run(lease, build_generated).execute()
        except LeaseLostError as lost:
            logger.warning("%s", lost)


def build_generated(generation: Generation, revision: Revision) -> None:
    """Queue the build of what a generation has made; of a repair, as the child of the build that it shall mend."""
    mended = None
    if generation.root_id:
        mended = Build.objects.filter(revision=generation.base_id, generation__isnull=False).order_by("-number").first()
    queue_promised_build(revision, by=generation.owner, generation=generation, repair_of=mended)
