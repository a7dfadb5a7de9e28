"""The worker processes of one queue: RQ's pool, fitted to jobs that outlive their workers."""

import contextlib
import ctypes
import gc
import logging
import multiprocessing
import os
import signal
from types import FrameType
from typing import Any

import django_rq
from django.db import connections
from rq import Worker
from rq.worker_pool import WorkerPool

from chef.jobs.wakeups import Doorbell

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1


class JobWorker(Worker):
    """RQ's worker, fitted to jobs: the database, not RQ, decides what a lost worker means."""

    # A Redis that comes back is noticed within seconds, not after a minute.
    max_connection_wait_time = 2.0

    def work(self, *args: Any, **kwargs: Any) -> bool:
        die_with_parent(signal.SIGTERM)
        kwargs["with_scheduler"] = False  # nothing is scheduled through Redis
        return super().work(*args, **kwargs)

    def handle_warm_shutdown_request(self) -> None:
        """Tell the process that does a job: it may finish within the grace, else it hands the job back."""
        if self.horse_pid:
            # By its own id: before it leads a group of its own, its group is still ours.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.horse_pid, signal.SIGTERM)

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """Told again. RQ would kill the running job now; it has its grace, so only an idle worker leaves at once."""
        if self.horse_pid:
            self.handle_warm_shutdown_request()
        else:
            super().request_force_stop(signum, frame)


class JobPool(WorkerPool):
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
        return
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():  # it died before we could ask
        os._exit(1)


def before_forks() -> None:
    """To be called when all is loaded that the processes forked for each job will need."""
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy every page that it looks at
    connections.close_all()  # a connection must not cross a fork


def run_pool(bell: Doorbell, count: int) -> None:
    """Run `count` workers that answer a bell, until SIGTERM or SIGINT; then wait for what they do."""
    pool = JobPool(
        [bell.queue], connection=django_rq.get_connection(bell.queue), num_workers=count, worker_class=JobWorker
    )
    pool.start(logging_level="WARNING")
