"""Waking up worker processes: an RQ job that carries nothing but "there may be work". The database says what there is.

Redis may lose any of these jobs: the reaper sends them again for what waits, see chef.jobs.reaping.
"""

import logging
from collections.abc import Callable
from functools import cache

import redis
import rq
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

logger = logging.getLogger(__name__)


class WorkerQueue:
    """The RQ queue `name`, whose workers call the function `task`, given by its dotted name.

    While an update is under way, workers of the old code call what the new code has enqueued, and the other way
    round: a task's dotted name must be known to both.
    """

    def __init__(self, name: str, task: str) -> None:
        self.name = name
        self._task = task

    def wake_up(self, times: int = 1) -> bool:
        """Tell the workers that there may be work. False when Redis did not answer: the reaper tries again later."""
        try:
            for _ in range(times):
                self.rq.enqueue(self._task, result_ttl=0, failure_ttl=3600, job_timeout=-1)
        except redis.RedisError as fault:
            logger.warning("no worker was woken up (%s); the reaper will try again", fault)
            return False
        return True

    def pending(self) -> int:
        """How many wake-ups no worker has taken yet. Raises redis.RedisError."""
        return int(self.rq.count)

    def wake_up_for(self, waiting: Callable[[], int]) -> int:
        """Wake up once for each job that waits while no wake-up is pending: it was lost, or a back-off is over.

        `waiting` is only asked then: how many jobs could be started now. Returns the number of wake-ups.
        """
        try:
            if self.pending():
                return 0
        except redis.RedisError as fault:
            logger.warning("Redis does not answer (%s); %s wait in the database", fault, self.name)
            return 0
        jobs = waiting()
        return jobs if jobs and self.wake_up(jobs) else 0

    @property
    def rq(self) -> rq.Queue:
        return _queue(self.name, settings.REDIS_URL)


@cache
def _queue(name: str, url: str) -> rq.Queue:
    # Its own short time-outs, and no retries: a request must not wait for a Redis that is down or hangs.
    client = redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=2, retry=Retry(NoBackoff(), 0))
    return rq.Queue(name, connection=client, default_timeout=-1)
