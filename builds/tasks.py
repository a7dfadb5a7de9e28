"""The queue's door: what an RQ job does. A job carries nothing; the database says what there is to do."""

import logging

from builds.queue.claims import claim
from builds.runner import Run
from builds.runtimes.registries import discover
from builds.sandbox.contract import Sandbox
from builds.sandbox.docker_sandbox import DockerSandbox
from chef.jobs.leases import LeaseLostError
from chef.jobs.shutdown import StopSignal, worker_name

logger = logging.getLogger(__name__)


def open_sandbox() -> Sandbox:
    """The engine that this installation uses. Raises EngineFault when it does not answer."""
    return DockerSandbox(discover)


def run_next() -> None:
    """Claim the best eligible build, if there is one, and run it to its end."""
    stopping = StopSignal()
    lease = claim(worker_name())
    if lease is None:
        return
    with lease.kept_alive(should_hand_back=stopping.is_due):
        try:
            Run(lease, open_sandbox).execute()
        except LeaseLostError as lost:
            logger.warning("%s", lost)
