"""The base of the commands that run a queue's workers."""

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
        """Do once, before forking, what each job's process would otherwise have to do itself."""

    def companion(self) -> Callable[[int], object] | None:
        """What runs in a process beside the workers, if anything."""
        return None

    def handle(self, *args: Any, count: int, **options: Any) -> None:
        if self.queue.workers is None:
            raise CommandError(f"This installation runs no workers for {self.queue.name}.")
        run_pool(self.queue.workers, count, warm_up=self.warm_up, companion=self.companion())
