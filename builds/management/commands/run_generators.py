"""`manage.py run_generators`: the processes that generate projects from prompts."""

import builds.generations  # noqa: F401  (imported once here, not anew in each process that is forked for a generation)
from chef.jobs.commands import WorkerCommand
from projects.engine.model.client import warm_up
from projects.generations.queue import GENERATIONS


class Command(WorkerCommand):
    help = "Runs the workers that generate projects from prompts. They do not need Docker."
    queue = GENERATIONS

    def warm_up(self) -> None:
        warm_up()
