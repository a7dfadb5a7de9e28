"""The worker processes of one queue: RQ's pool, adapted to jobs that outlive their workers."""

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
    """RQ's worker, adapted to jobs: the database, not RQ, decides what a lost worker means."""

    # Notice within seconds, not after a minute, that Redis is back.
    max_connection_wait_time = 2.0

    def work(self, *args: Any, **kwargs: Any) -> bool:
        die_with_parent(signal.SIGTERM)
        kwargs["with_scheduler"] = False  # nothing is scheduled through Redis
        return super().work(*args, **kwargs)

    def handle_warm_shutdown_request(self) -> None:
        """Pass SIGTERM on to the job's process: it may finish within the grace period, or else hands the job back."""
        if self.horse_pid:
            # To the process, not its group: until it has its own group, its group is ours.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.horse_pid, signal.SIGTERM)

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """A second signal. RQ would kill the running job; its grace period holds, so only an idle worker ends now."""
        if self.horse_pid:
            self.handle_warm_shutdown_request()
        else:
            super().request_force_stop(signum, frame)


class JobPool(WorkerPool):
    """RQ's pool signals its workers once. Code they are running may swallow the signal: send it again."""

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
    if parent is not None and parent.pid != os.getppid():  # the parent died before the call above
        os._exit(1)


def run_pool(
    queue: WorkerQueue,
    count: int,
    *,
    warm_up: Callable[[], object],
    companion: Callable[[int], object] | None = None,
) -> None:
    """Run `count` workers of a queue until SIGTERM or SIGINT; then wait for their running jobs.

    `warm_up` does once what each process forked for a job would otherwise have to do itself. `companion` is called
    with `count` in a separate process beside the workers; it runs until they end, and is stopped with them.
    """
    warm_up()
    _prepare_to_fork()
    with _companion_process(companion, count):
        connection = django_rq.get_connection(queue.name)
        pool = JobPool([queue.name], connection=connection, num_workers=count, worker_class=JobWorker)
        pool.start(logging_level="WARNING")


def _prepare_to_fork() -> None:
    """Call it once everything is loaded that the forked processes need."""
    gc.collect()
    gc.freeze()  # garbage collection in a forked process would copy every page it touches
    connections.close_all()  # a connection must not cross a fork


@contextlib.contextmanager
def _companion_process(companion: Callable[[int], object] | None, count: int) -> Iterator[None]:
    if companion is None:
        yield
        return
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=_run_companion, args=(companion, count), name="companion", daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()


def _run_companion(companion: Callable[[int], object], count: int) -> None:
    die_with_parent(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pool ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    companion(count)
