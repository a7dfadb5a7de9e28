"""What the workers of one machine share: preloading before the fork, and the sweeper.

The pool itself is chef.jobs.pool.
"""

import contextlib
import logging
import mimetypes
import socket
import time
from datetime import timedelta

from django.core.files.storage import storages
from django.db import connections
from django.utils import timezone

from builds.models import WorkerHost
from builds.reaper import sweep
from builds.sandbox.chef_init import first_process
from builds.sandbox.contract import SandboxError
from builds.sandbox.engine import FAULTS, api_version, engine_status, guarded
from builds.tasks import open_sandbox  # also preloads it for processes forked for a build

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 10
# A recreated container has a new host name: hosts that are gone do not come back.
FORGOTTEN_AFTER = timedelta(days=1)


def warm_up() -> None:
    """Do once, before forking, what each build's process would otherwise have to do itself."""
    mimetypes.init()
    storages["default"]  # loads its client without connecting
    if warning := first_process().warning:
        logger.warning(warning)
    with contextlib.suppress(*FAULTS):
        api_version()


def sweep_for_ever(workers: int) -> None:
    """Runs beside the workers: records every few seconds that this machine is alive, and cleans its engine."""
    while True:
        try:
            sweep_and_report(workers)
        except Exception:
            logger.exception("the sweeper failed and continues")
        connections.close_all()
        time.sleep(SWEEP_SECONDS)


def sweep_and_report(workers: int) -> None:
    fault, engine = "", None
    try:
        sweep(open_sandbox())
        engine = guarded(engine_status)()
    except SandboxError as caught:
        logger.warning("the engine does not answer: %s", caught)
        fault = str(caught)[:300] or "no answer"
    now = timezone.now()
    WorkerHost.objects.update_or_create(
        name=socket.gethostname(),
        defaults={"workers": workers, "engine_fault": fault, "engine": engine, "seen_at": now},
    )
    WorkerHost.objects.filter(seen_at__lt=now - FORGOTTEN_AFTER).delete()
