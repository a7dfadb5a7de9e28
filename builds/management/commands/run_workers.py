"""`manage.py run_workers`: the processes that run builds on this machine."""

from collections.abc import Callable

from builds.queue.claims import LOCAL_BUILDS
from builds.worker import sweep_for_ever, warm_up
from chef.jobs.commands import WorkerCommand


class Command(WorkerCommand):
    help = "Runs the workers of this machine, and the sweeper of its Docker engine."
    queue = LOCAL_BUILDS

    def warm_up(self) -> None:
        warm_up()

    def companion(self) -> Callable[[int], object]:
        return sweep_for_ever
