"""`manage.py run_workers`: the processes that run builds on this machine."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from builds.worker import run_workers


class Command(BaseCommand):
    help = "Runs the workers of this machine, and the sweeper of its Docker engine."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--count", type=int, default=settings.WORKER_CONCURRENCY, help="default: WORKER_CONCURRENCY"
        )

    def handle(self, *args: Any, count: int, **options: Any) -> None:
        run_workers(count)
