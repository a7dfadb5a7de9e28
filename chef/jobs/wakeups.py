"""The doorbell of a queue: an RQ job that carries nothing but "there may be work". The database says what there is."""

import logging
from collections.abc import Callable
from functools import cache

import redis
import rq
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

logger = logging.getLogger(__name__)


class Doorbell:
    """The bell of the RQ queue `queue`; who answers it calls the function `task`, given by its dotted name."""

    def __init__(self, queue: str, task: str) -> None:
        self.queue = queue
        self._task = task

    def ring(self, times: int = 1) -> bool:
        """Tell the workers that there may be work. False when Redis did not answer: the reaper rings again later."""
        try:
            for _ in range(times):
                self.rq.enqueue(self._task, result_ttl=0, failure_ttl=3600, job_timeout=-1)
        except redis.RedisError as fault:
            logger.warning("the doorbell did not ring (%s); the reaper will ring again", fault)
            return False
        return True

    def waiting(self) -> int:
        """How many rings no worker has answered yet. Raises redis.RedisError."""
        return int(self.rq.count)

    def ring_for(self, waiting: Callable[[], int]) -> int:
        """Ring once for each job that waits while no ring does: it was lost, or a back-off is over. Returns how often.

        `waiting` is asked only then: how many jobs could be started now.
        """
        try:
            if self.waiting():
                return 0
        except redis.RedisError as fault:
            logger.warning("Redis does not answer (%s); %s wait in the database", fault, self.queue)
            return 0
        jobs = waiting()
        return jobs if jobs and self.ring(jobs) else 0

    @property
    def rq(self) -> rq.Queue:
        return _queue(self.queue, settings.REDIS_URL)


@cache
def _queue(name: str, url: str) -> rq.Queue:
    # Its own short time-outs, and no retries: a request must not wait for a Redis that is down or hangs.
    client = redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=2, retry=Retry(NoBackoff(), 0))
    return rq.Queue(name, connection=client, default_timeout=-1)
