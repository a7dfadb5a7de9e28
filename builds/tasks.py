"""What an RQ job of the queue `builds` does. A job carries nothing; the database says what there is to do.

The dotted name of `run_next` is in Redis, and is called by workers of older and newer code: it stays.
"""

from builds.queue.claims import LOCAL_BUILDS, BuildLease
from builds.runner import Run
from builds.runtimes.registries import discover
from builds.sandbox.contract import Sandbox
from builds.sandbox.docker_sandbox import DockerSandbox
from chef.jobs import running


def open_sandbox() -> Sandbox:
    """The engine that this installation uses. Raises SandboxError when it does not answer."""
    return DockerSandbox(discover)


def run_next() -> None:
    """Claim the best eligible build, if there is one, and run it to its end."""
    running.run_next(LOCAL_BUILDS, _run)


def _run(lease: BuildLease) -> None:
    Run(lease, open_sandbox).execute()
