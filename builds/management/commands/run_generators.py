"""`manage.py run_generators`: the processes that write projects from prompts."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

import builds.generations  # noqa: F401  (imported once here, not anew in each process that is forked for a generation)
from chef.jobs.pool import before_forks, run_pool
from projects.engine.model.client import warm_up
from projects.generations.actions import bell


class Command(BaseCommand):
    help = "Runs the workers that write projects from prompts. They need no Docker."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--count", type=int, default=settings.GENERATION_CONCURRENCY, help="default: GENERATION_CONCURRENCY"
        )

    def handle(self, *args: Any, count: int, **options: Any) -> None:
        warm_up()
        before_forks()
        run_pool(bell, count)
