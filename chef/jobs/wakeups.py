"""Waking up workers: an RQ job that says only "there may be work"; the work itself is in the database.

Redis may lose any of these jobs: the reaper sends them again for waiting jobs, see chef.jobs.reaping.
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
    """The RQ queue `name`, whose workers call the function with the dotted path `task`.

    During an update, old workers run what new code has enqueued, and the reverse: the task's path must exist in both.
    """

    def __init__(self, name: str, task: str) -> None:
        self.name = name
        self._task = task

    def wake_up(self, times: int = 1) -> bool:
        """Tell the workers that there may be work. False if Redis does not answer: the reaper tries again later."""
        try:
            for _ in range(times):
                self.rq.enqueue(self._task, result_ttl=0, failure_ttl=3600, job_timeout=-1)
        except redis.RedisError as error:
            logger.warning("could not wake up a worker (%s); the reaper will try again", error)
            return False
        return True

    def pending(self) -> int:
        """How many wake-ups are still in the queue. Raises redis.RedisError."""
        return int(self.rq.count)

    def wake_up_for(self, waiting: Callable[[], int]) -> int:
        """Wake up once per waiting job if no wake-up is pending: it was lost, or a back-off is over.

        `waiting` returns how many jobs could start now; called only if needed. Returns the number of wake-ups.
        """
        try:
            if self.pending():
                return 0
        except redis.RedisError as error:
            logger.warning("Redis does not answer (%s); %s wait in the database", error, self.name)
            return 0
        jobs = waiting()
        return jobs if jobs and self.wake_up(jobs) else 0

    @property
    def rq(self) -> rq.Queue:
        return _queue(self.name, settings.REDIS_URL)


@cache
def _queue(name: str, url: str) -> rq.Queue:
    # Short time-outs and no retries: a request must not wait for a Redis that is down or hangs.
    client = redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=2, retry=Retry(NoBackoff(), 0))
    return rq.Queue(name, connection=client, default_timeout=-1)
