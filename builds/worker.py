"""The worker processes of one machine: RQ's pool of workers, and one sweeper beside them for the engine they use."""

import contextlib
import ctypes
import gc
import logging
import mimetypes
import multiprocessing
import os
import signal
import socket
import time
from datetime import timedelta
from types import FrameType
from typing import Any

import django_rq
from django.db import connections
from django.utils import timezone
from rq import Worker
from rq.worker_pool import WorkerPool

import builds.sandbox.docker_sandbox
import builds.tasks  # noqa: F401  (both: imported once here, not anew in each process that is forked for a build)
from builds.models import WorkerHost
from builds.queue import QUEUE_NAME
from builds.reaper import sweep
from builds.sandbox import open_sandbox
from builds.sandbox.contract import EngineFault
from builds.sandbox.engine import FAULTS, api_version

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 10
# A container's name is new each time it is made: hosts that are gone do not come back.
FORGOTTEN_AFTER = timedelta(days=1)
_PR_SET_PDEATHSIG = 1


class BuildWorker(Worker):
    """RQ's worker, fitted to builds: the database, not RQ, decides what a lost worker means."""

    # A Redis that comes back is noticed within seconds, not after a minute.
    max_connection_wait_time = 2.0

    def work(self, *args: Any, **kwargs: Any) -> bool:
        die_with_parent(signal.SIGTERM)
        kwargs["with_scheduler"] = False  # nothing is scheduled through Redis
        return super().work(*args, **kwargs)

    def handle_warm_shutdown_request(self) -> None:
        """Tell the process that runs a build: it may finish within the grace, else it hands the build back."""
        if self.horse_pid:
            # By its own id: before it leads a group of its own, its group is still ours.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.horse_pid, signal.SIGTERM)

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """Told again. RQ would kill the running build now; it has its grace, so only an idle worker leaves at once."""
        if self.horse_pid:
            self.handle_warm_shutdown_request()
        else:
            super().request_force_stop(signum, frame)


class BuildPool(WorkerPool):
    """RQ's pool, which tells its workers to stop once. Code that they are just in may swallow that: tell them again."""

    def all_workers_have_stopped(self) -> bool:
        stopped = bool(super().all_workers_have_stopped())
        if not stopped:
            self.stop_workers()  # type: ignore[no-untyped-call]
        return stopped


def die_with_parent(sig: signal.Signals) -> None:
    """Have the kernel send `sig` to this process when its parent dies: nothing outlives the pool. Linux only."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, sig)
    except (OSError, AttributeError):
        logger.debug("this system cannot tie a process to its parent")


def warm_up() -> None:
    """Do once, before the forks, what each process that runs a build would otherwise do for itself."""
    mimetypes.init()
    with contextlib.suppress(*FAULTS):
        api_version()
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy every page that it looks at


def run_workers(count: int) -> None:
    """Run `count` workers and the sweeper until SIGTERM or SIGINT; then wait for what they run."""
    sweeper = multiprocessing.get_context("fork").Process(
        target=sweep_for_ever, args=(count,), name="sweeper", daemon=True
    )
    warm_up()
    connections.close_all()  # a connection must not cross a fork
    sweeper.start()
    pool = BuildPool(
        [QUEUE_NAME],
        connection=django_rq.get_connection(QUEUE_NAME),
        num_workers=count,
        worker_class=BuildWorker,
    )
    pool.start(logging_level="WARNING")
    sweeper.terminate()


def sweep_for_ever(workers: int) -> None:
    """Beside the pool: tell the database every few seconds that this machine is alive, and keep its engine clean."""
    die_with_parent(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pool ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        try:
            sweep_and_tell(workers)
        except Exception:
            logger.exception("the sweeper stumbled and goes on")
        connections.close_all()
        time.sleep(SWEEP_SECONDS)


def sweep_and_tell(workers: int) -> None:
    fault = ""
    try:
        sweep(open_sandbox())
    except EngineFault as caught:
        logger.warning("the engine does not answer: %s", caught)
        fault = str(caught)[:300] or "no answer"
    now = timezone.now()
    WorkerHost.objects.update_or_create(
        name=socket.gethostname(), defaults={"workers": workers, "engine_fault": fault, "seen_at": now}
    )
    WorkerHost.objects.filter(seen_at__lt=now - FORGOTTEN_AFTER).delete()
