"""Live updates are a doorbell too: Redis carries "build X has changed", and whoever hears it reads the database.

A message that is lost loses nothing, for listeners also look by themselves. So telling may fail, but must not wait:
a Redis that is down or hangs costs a build one short time-out in a pause. Knows nothing of builds but their ids.
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
# A listener asks whether Redis is still there when it has heard nothing for so long, and goes by the silence.
QUIET_SECONDS = 1.0
RECONNECT_SECONDS = 1.0


def channel() -> str:
    return f"{settings.INSTALLATION}:builds"


class _Speaker:
    """Tells, and leaves Redis alone for a while when it does not answer."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(
            url, socket_connect_timeout=SEND_SECONDS, socket_timeout=SEND_SECONDS, retry=Retry(NoBackoff(), 0)
        )
        self._silent_until = 0.0

    def tell(self, build_id: UUID) -> None:
        if time.monotonic() < self._silent_until:
            return
        try:
            self._client.publish(channel(), str(build_id))
        except redis.RedisError as fault:
            self._silent_until = time.monotonic() + PAUSE_SECONDS
            logger.warning("live readers are not told (%s); for %g s they look by themselves", fault, PAUSE_SECONDS)


@cache
def _speaker(url: str) -> _Speaker:
    return _Speaker(url)


def announce(build_id: UUID) -> None:
    """Tell every web process that a build has changed. To be called after the commit; never raises, hardly waits."""
    _speaker(settings.REDIS_URL).tell(build_id)


async def listen(on_change: Callable[[UUID], None], on_link: Callable[[bool], None]) -> Never:
    """Give the id of each build that has changed, for ever, and say each time when Redis is heard and when not.

    What was told while Redis was not heard is lost: on `on_link(True)`, anything may have changed.
    """
    while True:
        try:
            await _listen_once(on_change, on_link)
        except (redis.RedisError, OSError, TimeoutError) as fault:
            logger.warning("Redis is not heard (%s); live readers look by themselves", fault)
            on_link(False)
        _stop_if_cancelled()
        await asyncio.sleep(RECONNECT_SECONDS)


def _stop_if_cancelled() -> None:
    """A cancellation may be swallowed by the client, which cancels itself to end its waiting: look whether one came."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _listen_once(on_change: Callable[[UUID], None], on_link: Callable[[bool], None]) -> Never:
    client = redis.asyncio.Redis.from_url(
        settings.REDIS_URL, socket_connect_timeout=2, socket_timeout=2, retry=AsyncRetry(NoBackoff(), 0)
    )
    async with client, client.pubsub() as ears:
        await ears.subscribe(channel())
        heard = time.monotonic()
        while True:
            message = await ears.get_message(timeout=QUIET_SECONDS)
            _stop_if_cancelled()
            if message is None:
                # One that is stopped in its tracks closes no connection: only a missing answer tells.
                if time.monotonic() - heard > 3 * QUIET_SECONDS:
                    raise TimeoutError(f"no answer for {3 * QUIET_SECONDS:g} s")
                await ears.ping()
                continue
            heard = time.monotonic()
            if message["type"] == "subscribe":
                on_link(True)
            elif message["type"] == "message":
                with contextlib.suppress(ValueError):  # somebody else's words on our channel
                    on_change(UUID(message["data"].decode()))
