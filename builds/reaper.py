"""What an expired lease or an orphan container of a build gets.

The first needs only the database: the reaper process does it, see chef.jobs.reaping. Orphans are removed beside each
engine, by the sweeper that runs with the workers there. Any number of either may run at once: every change is a
compare-and-set, and removing twice is harmless.
"""

import logging

from builds.artifacts import discard_attempt
from builds.models import Build
from builds.queue.claims import LOCAL_BUILDS
from builds.sandbox.contract import Sandbox
from chef.jobs import reaping

logger = logging.getLogger(__name__)


def reap_abandoned() -> int:
    """Take every build whose lease has run out, an external one too, from its silent worker. Returns how many."""
    return reaping.reap_abandoned(LOCAL_BUILDS, discard=lambda build: discard_attempt(build.pk, build.fence))


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
