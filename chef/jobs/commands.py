"""What the commands that run the workers of a queue have in common."""

from collections.abc import Callable
from typing import Any, ClassVar

from django.core.management.base import BaseCommand, CommandError, CommandParser

from chef.jobs.pool import run_pool
from chef.jobs.queues import JobQueue


class WorkerCommand(BaseCommand):
    """A command that runs the workers of `queue` until SIGTERM or SIGINT. See chef.jobs.pool.run_pool."""

    queue: ClassVar[JobQueue[Any, Any]]

    def add_arguments(self, parser: CommandParser) -> None:
        setting = self.queue.concurrency_setting
        parser.add_argument("--count", type=int, default=self.queue.concurrency, help=f"default: {setting}")

    def warm_up(self) -> None:
        """Do once, before the forks, what each process that runs a job would otherwise do for itself."""

    def companion(self) -> Callable[[int], object] | None:
        """What runs beside the workers, if anything does."""
        return None

    def handle(self, *args: Any, count: int, **options: Any) -> None:
        if self.queue.workers is None:
            raise CommandError(f"No worker of this installation takes {self.queue.name}.")
        run_pool(self.queue.workers, count, warm_up=self.warm_up, companion=self.companion())
