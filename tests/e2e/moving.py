"""`python -m tests.e2e.moving PROJECT COUNT SEED`: moves many builds of a project through their statuses.

Runs in its own process, with an installation's environment: real rows, changed by `transition_to`, without Docker.
"""

import os
import random
import sys
from typing import Any

AT_ONCE = 20


def main(project_id: str, count: int, seed: int) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "chef.settings"
    import django

    django.setup()

    from projects.models import Project

    chance = random.Random(seed)
    revision = Project.objects.get(pk=project_id).revisions.get()
    for done in range(0, count, AT_ONCE):
        move(revision, min(AT_ONCE, count - done), chance)


def move(revision: Any, count: int, chance: random.Random) -> None:
    """Queue `count` builds, then start and end each, in random order."""
    from builds import actions
    from builds.verdicts.evidence import verdict
    from chef.jobs.models import Status

    builds = [actions.queue_build(revision, by=revision.project.owner) for _ in range(count)]
    for build in chance.sample(builds, count):
        build.start("mover")
    for build in chance.sample(builds, count):
        ending = chance.choice([Status.COMPLETED, Status.FAILED, Status.CANCELLED])
        reason: Any = (
            {} if ending == Status.COMPLETED else {"verdict": verdict("build_failed", phase="build").as_json()}
        )
        build.transition_to(ending, **reason)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
