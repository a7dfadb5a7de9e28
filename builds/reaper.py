"""What an expired lease, a lost wake-up or an orphan container gets.

The first two need only the database and Redis: the reaper process does them. Orphans are removed beside each
engine, by the sweeper that runs with the workers there. Any number of either may run at once: every change is a
compare-and-set, and removing twice is harmless.
"""

import logging

from django.conf import settings
from django.utils import timezone

from builds.artifacts import discard_attempt
from builds.models import Build
from builds.queue.claims import after_fault, bell, in_claim_order
from builds.sandbox.contract import Sandbox
from chef.jobs.models import TransitionRefusedError

logger = logging.getLogger(__name__)


def reap_abandoned() -> int:
    """Take every build whose lease has run out from its silent worker. Returns how many."""
    reaped = 0
    for build in Build.objects.abandoned(timezone.now()):
        silent = f"{build.worker} was silent for {build.lease_seconds:g} s during {build.phase or 'the start'}"
        status, changes = after_fault(build, "worker_lost", evidence=silent)
        try:
            build.transition_to(status, **changes)
        except TransitionRefusedError:
            continue  # it spoke at the last moment, or another reaper was first
        reaped += 1
        discard_attempt(build.pk, build.fence)
        logger.warning("build %s: %s; now %s", build.pk, silent, status)
    return reaped


def ring_for_waiting() -> int:
    """Ring for builds that wait for our workers while no bell does. Returns how often."""
    return bell.ring_for(lambda: in_claim_order(timezone.now())[: settings.WORKER_CONCURRENCY].count())


def sweep(sandbox: Sandbox) -> int:
    """Remove what attempts that are over have left on this engine. Returns how many attempts were swept.

    The engine is listed before the database is asked: whatever is listed was made after its claim was committed.
    """
    swept = 0
    for identity in sandbox.leftovers():
        if not Build.objects.held(identity.build, identity.fence).exists():
            sandbox.remove(identity)
            swept += 1
            logger.info("swept what attempt %s of build %s had left", identity.fence, identity.build)
    return swept
