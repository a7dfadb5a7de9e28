"""The worker processes of one queue: RQ's pool, fitted to jobs that outlive their workers."""

import contextlib
import ctypes
import gc
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import django_rq
from django.db import connections
from rq import Worker
from rq.worker_pool import WorkerPool

from chef.jobs.wakeups import WorkerQueue

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
        """Pass SIGTERM on to the process that runs a job: it may finish within the grace, else hands the job back."""
        if self.horse_pid:
            # By its own id: before it leads a group of its own, its group is still ours.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.horse_pid, signal.SIGTERM)

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """A second signal. RQ would kill the running job now; it has its grace, so only an idle worker ends at once."""
        if self.horse_pid:
            self.handle_warm_shutdown_request()
        else:
            super().request_force_stop(signum, frame)


class JobPool(WorkerPool):
    """RQ's pool asks its workers to stop once. Code that they are just in may swallow the signal: ask again."""

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


def run_pool(
    queue: WorkerQueue,
    count: int,
    *,
    warm_up: Callable[[], object],
    companion: Callable[[int], object] | None = None,
) -> None:
    """Run `count` workers of a queue until SIGTERM or SIGINT; then wait for the jobs that they run.

    `warm_up` does, once, what each process that is forked for a job would otherwise do for itself. `companion` is
    called with `count` in a process of its own beside the workers; it runs for ever, and is ended with them.
    """
    warm_up()
    _before_forks()
    with _beside(companion, count):
        connection = django_rq.get_connection(queue.name)
        pool = JobPool([queue.name], connection=connection, num_workers=count, worker_class=JobWorker)
        pool.start(logging_level="WARNING")


def _before_forks() -> None:
    """When all is loaded that the processes forked for each job will need."""
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy every page that it looks at
    connections.close_all()  # a connection must not cross a fork


@contextlib.contextmanager
def _beside(companion: Callable[[int], object] | None, count: int) -> Iterator[None]:
    if companion is None:
        yield
        return
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=_accompany, args=(companion, count), name="companion", daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()


def _accompany(companion: Callable[[int], object], count: int) -> None:
    die_with_parent(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pool ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    companion(count)
