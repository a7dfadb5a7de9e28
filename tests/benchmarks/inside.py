"""A process with Chef's code and one database: times functions that no request calls, and counts queries.

Used through `Inside`; the functions at module level run in that process.
"""

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class Request:
    """A request to send."""

    method: str
    path: str
    headers: Mapping[str, str]


class Inside:
    """The process; it ends with `close`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_set_up, initargs=(dict(environment),))

    def close(self) -> None:
        self._pool.shutdown()

    def seconds_of(self, work: str) -> float:
        """Seconds that a function of WORK takes."""
        return self._pool.submit(_seconds_of, work).result()

    def queries_of_work(self, work: str) -> int:
        return self._pool.submit(_queries_of_work, work).result()

    def queries_of(self, request: Request) -> int:
        """Number of queries for an answer, in all threads; a request before it has warmed up the caches."""
        return self._pool.submit(_queries_of, request).result()


# --- Inside the process ----------------------------------------------------------------------------------------------

WORK = ("claim", "reaper: abandoned builds", "reaper: queued builds", "reaper: old keys", "forecast of the queue")


class _Count:
    """Counts the queries of every connection of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.queries = 0

    def __call__(self, execute: Callable[..., Any], *args: Any) -> Any:
        with self._lock:
            self.queries += 1
        return execute(*args)

    def watch(self, connection: Any, **_: Any) -> None:
        if self not in connection.execute_wrappers:  # kept when the connection is reopened
            connection.execute_wrappers.append(self)


_count = _Count()


def _set_up(environment: dict[str, str]) -> None:
    os.environ.update(environment, DJANGO_SETTINGS_MODULE="chef.settings")
    import django
    from django.db.backends.signals import connection_created

    django.setup()
    connection_created.connect(_count.watch, weak=False)


def _work(name: str) -> Callable[[], Any]:
    # Chef's code can only be imported after Django's set-up.
    from django.conf import settings
    from django.utils import timezone

    from builds import reaper
    from builds.queue import forecast
    from builds.queue.claims import LOCAL_BUILDS, claim
    from chef.web.idempotency import forget_old_keys

    concurrency = settings.WORKER_CONCURRENCY
    return {
        "claim": lambda: claim("benchmark"),
        "reaper: abandoned builds": reaper.reap_abandoned,
        # Without wake-ups, as no worker receives them: only its queries.
        "reaper: queued builds": lambda: LOCAL_BUILDS.in_claim_order(timezone.now())[:concurrency].count(),
        "reaper: old keys": forget_old_keys,
        "forecast of the queue": forecast.look_ahead,
    }[name]


def _seconds_of(name: str) -> float:
    work = _work(name)
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _queries_of_work(name: str) -> int:
    _work(name)()
    before = _count.queries
    _work(name)()
    return _count.queries - before


def _queries_of(request: Request) -> int:
    return asyncio.run(_request_twice(request))


async def _request_twice(request: Request) -> int:
    from builds.queue import forecast
    from chef.asgi import application

    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        before = 0
        for _ in range(2):
            forecast.forget()  # answers that are shared for a second would skip queries in one of the two
            before = _count.queries
            answer = await client.request(request.method, request.path, headers=request.headers)
            if answer.is_error:  # httpx's own exceptions cannot be pickled
                raise RuntimeError(f"{request.method} {request.path}: {answer.status_code} {answer.text[:500]}")
    return _count.queries - before
