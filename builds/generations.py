"""The task of the RQ queue `generations`, and queueing the build of a finished generation.

Separate from `builds.tasks`, because these workers need no sandbox. The dotted name of `generate_next` is in Redis, and
is called by workers of older and newer code: do not change it.
"""

from builds.actions import queue_promised_build
from builds.models import Build
from chef.jobs import running
from chef.jobs.leases import Lease
from projects.generations.queue import GENERATIONS
from projects.generations.runner import Run
from projects.models import Generation, Revision


def generate_next() -> None:
    """Claim the best eligible generation, if any, and run it to its end."""
    running.run_next(GENERATIONS, _run)


def _run(lease: Lease[Generation]) -> None:
    Run(lease, build_generated).execute()


def build_generated(generation: Generation, revision: Revision) -> None:
    """Queue the build of a generation's revision; for a repair, as the child of the build it repairs."""
    repaired = None
    if generation.root_id:
        of_base = Build.objects.filter(revision=generation.base_id, generation__isnull=False)
        repaired = of_base.order_by("-number").first()
    queue_promised_build(revision, by=generation.owner, generation=generation, repair_of=repaired)
