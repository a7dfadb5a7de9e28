"""The task of the RQ queue `builds`. A job carries no data; the work is in the database.

The dotted name of `run_next` is in Redis, and is called by workers of older and newer code: do not change it.
"""

from builds.queue.claims import LOCAL_BUILDS, BuildLease
from builds.runner import Run
from builds.runtimes.registries import discover
from builds.sandbox.contract import Sandbox
from builds.sandbox.docker_sandbox import DockerSandbox
from chef.jobs import running


def open_sandbox() -> Sandbox:
    """The sandbox of this installation. Raises SandboxError if the engine does not answer."""
    return DockerSandbox(discover)


def run_next() -> None:
    """Claim the best eligible build, if any, and run it to its end."""
    running.run_next(LOCAL_BUILDS, _run)


def _run(lease: BuildLease) -> None:
    Run(lease, open_sandbox).execute()
