"""A worker's exclusive right to write about the job it has claimed, kept alive by a heartbeat."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Generic, Self, TypeVar

from django.db import DatabaseError, close_old_connections, connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from chef.jobs.models import Job, JobQuerySet, Status, TransitionRefusedError
from chef.refusals import RefusalError

logger = logging.getLogger(__name__)

J = TypeVar("J", bound=Job)


class LeaseLostError(RefusalError):
    """This worker no longer holds the job: it cleans up, such as its container, and writes nothing more."""

    code = "stale_fence"


class Lease(Generic[J]):
    """What a claim returns: the right to run the job.

    `lost` is set once the right is gone (another worker has it, the job was cancelled, or the database was unreachable
    for a whole lease); `interrupted` when this process has to stop and the job must go back to the queue.
    """

    def __init__(self, job: J) -> None:
        self.job = job
        self.fence = job.fence
        self.lost = threading.Event()
        self.interrupted = threading.Event()
        self._ended = threading.Event()
        self._heartbeat: threading.Thread | None = None

    def __str__(self) -> str:
        return f"{self.job._meta.verbose_name} {self.job.pk}"

    @property
    def must_stop(self) -> bool:
        return self.lost.is_set() or self.interrupted.is_set()

    @contextlib.contextmanager
    def writing(self, **changes: Any) -> Iterator[None]:
        """A transaction in which this worker may write. Raises LeaseLostError, with nothing written, if it is lost.

        The update of the job's row is both check and lock: no claim or transition can happen between it and the
        writes inside the block.
        """
        with transaction.atomic():
            changes.setdefault("fence", self.fence)
            if not self._held().update(**changes):
                self.lost.set()
                raise LeaseLostError(f"{self} is no longer held under fence {self.fence}")
            yield

    def end(self, status: Status, *, outcome: str = "", **changes: Any) -> None:
        """The last write: give the job its next status. Raises LeaseLostError when the lease is lost."""
        try:
            self.job.transition_to(status, outcome=outcome, **changes)
        except TransitionRefusedError as refusal:
            self.lost.set()
            raise LeaseLostError(str(refusal)) from refusal

    @contextlib.contextmanager
    def kept_alive(self, *, should_hand_back: Callable[[], bool] = lambda: False) -> Iterator[Self]:
        """Renew the lease from a thread until the block ends; `should_hand_back` is called about once a second."""
        self._heartbeat = threading.Thread(
            target=self._beat, args=(should_hand_back,), name="lease-heartbeat", daemon=True
        )
        self._heartbeat.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._heartbeat.join(timeout=5)

    def _beat(self, should_hand_back: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.job.lease_seconds
        try:
            while not self._ended.wait(min(1.0, self.job.lease_seconds / 4)):
                if should_hand_back():
                    self.interrupted.set()
                if self._renew():
                    deadline = time.monotonic() + self.job.lease_seconds
                elif time.monotonic() > deadline:
                    # The database was unreachable for a whole lease: another worker may hold the job by now.
                    self.lost.set()
                if self.lost.is_set():
                    return
        finally:
            connection.close()

    def _renew(self) -> bool:
        expiry = timezone.now() + timedelta(seconds=self.job.lease_seconds)
        try:
            if self._held().update(lease_expires_at=expiry):
                return True
            self.lost.set()
        except DatabaseError as error:
            logger.warning("%s: the lease was not renewed: %s", self, error)
            close_old_connections()
        return False

    def _held(self) -> QuerySet[J]:
        rows: JobQuerySet[J] = type(self.job)._default_manager.all()  # type: ignore[assignment]
        return rows.held(self.job.pk, self.fence)
