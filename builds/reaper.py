"""Cleans up after builds: expired leases, and orphaned containers.

The reaper process handles leases, which needs only the database, see chef.jobs.reaping. The sweeper, which runs with
the workers beside each engine, removes orphans. Any number of either may run at once: every change is a
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
    """Take builds with an expired lease, external ones too, from their silent workers. Returns how many."""
    return reaping.reap_abandoned(LOCAL_BUILDS, discard=lambda build: discard_attempt(build.pk, build.fence))


def sweep(sandbox: Sandbox) -> int:
    """Remove what finished attempts have left on this engine. Returns how many attempts were swept.

    List the engine before querying the database: everything listed was created after its claim was committed.
    """
    swept = 0
    for identity in sandbox.leftovers():
        if not Build.objects.held(identity.build, identity.fence).exists():
            sandbox.remove(identity)
            swept += 1
            logger.info("removed what attempt %s of build %s left behind", identity.fence, identity.build)
    return swept
