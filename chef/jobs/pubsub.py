"""Publish/subscribe: Redis carries "job X has changed", and subscribers read the details from the database.

A lost message loses nothing, because subscribers also poll. So publishing may fail but must not block: a Redis that is
down or hangs costs a build one short time-out per PAUSE_SECONDS. Knows only the ids of jobs.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from functools import cache
from typing import Never
from uuid import UUID

import redis
import redis.asyncio
from django.conf import settings
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

logger = logging.getLogger(__name__)

SEND_SECONDS = 0.1
PAUSE_SECONDS = 5.0
# A subscriber that has received nothing for this long sends a ping; without an answer, the connection counts as lost.
QUIET_SECONDS = 1.0
RECONNECT_SECONDS = 1.0


def channel() -> str:
    return f"{settings.INSTALLATION}:builds"


class _Publisher:
    """Publishes messages; pauses for PAUSE_SECONDS when Redis does not answer."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(
            url, socket_connect_timeout=SEND_SECONDS, socket_timeout=SEND_SECONDS, retry=Retry(NoBackoff(), 0)
        )
        self._paused_until = 0.0

    def publish(self, job_id: UUID) -> None:
        if time.monotonic() < self._paused_until:
            return
        try:
            self._client.publish(channel(), str(job_id))
        except redis.RedisError as error:
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            logger.warning("cannot publish changes (%s); for %g s, subscribers only poll", error, PAUSE_SECONDS)


@cache
def _publisher(url: str) -> _Publisher:
    return _Publisher(url)


def publish_change(job_id: UUID) -> None:
    """Publish the id of a job that has changed. Call it after the commit. Never raises, and hardly blocks."""
    _publisher(settings.REDIS_URL).publish(job_id)


async def subscribe(on_change: Callable[[UUID], None], on_connection: Callable[[bool], None]) -> Never:
    """Call `on_change` with the id of each job that has changed, forever, reconnecting when the connection is lost.

    `on_connection` is called with True when subscribed, and with False when the connection is lost. Messages in
    between are lost: after `on_connection(True)`, assume that anything may have changed.
    """
    while True:
        try:
            await _subscribe_once(on_change, on_connection)
        except (redis.RedisError, OSError, TimeoutError) as error:
            logger.warning("lost the subscription to Redis (%s); live readers poll", error)
            on_connection(False)
        _stop_if_cancelled()
        await asyncio.sleep(RECONNECT_SECONDS)


def _stop_if_cancelled() -> None:
    """redis-py cancels itself on time-outs, and may swallow a cancellation from outside: check for one."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _subscribe_once(on_change: Callable[[UUID], None], on_connection: Callable[[bool], None]) -> Never:
    client = redis.asyncio.Redis.from_url(
        settings.REDIS_URL, socket_connect_timeout=2, socket_timeout=2, retry=AsyncRetry(NoBackoff(), 0)
    )
    async with client, client.pubsub() as subscription:
        await subscription.subscribe(channel())
        received_at = time.monotonic()
        while True:
            message = await subscription.get_message(timeout=QUIET_SECONDS)
            _stop_if_cancelled()
            if message is None:
                # A frozen Redis (SIGSTOP) closes no connection: only the missing answer shows it.
                if time.monotonic() - received_at > 3 * QUIET_SECONDS:
                    raise TimeoutError(f"no answer for {3 * QUIET_SECONDS:g} s")
                await subscription.ping()
                continue
            received_at = time.monotonic()
            if message["type"] == "subscribe":
                on_connection(True)
            elif message["type"] == "message":
                with contextlib.suppress(ValueError):  # not an id: another program uses our channel
                    on_change(UUID(message["data"].decode()))
