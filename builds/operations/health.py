"""Whether the installation can work: answers in under a second even when a dependency hangs."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock
from typing import Any

import redis
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.db.models import Count, Min
from django.utils import timezone
from redis.backoff import NoBackoff
from redis.retry import Retry

from builds.heartbeats import is_there
from builds.models import HOST_SILENCE, Build, Delivery, Heartbeat, QueuePause, WorkerHost
from chef.jobs.models import Status

ANSWER_SECONDS = 0.8

# Due deliveries wait for their endpoint's turn; a longer wait than this means that no sender runs. Beyond
# MOST_COUNTED, an exact count is not worth the time.
DELIVERY_LATE_SECONDS = 60
MOST_COUNTED = 10_000

# One thread per check: a hanging check keeps its thread until its own time-out, and no other check waits for it.
_pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="health")
_under_way: dict[str, Future[Any]] = {}
_lock = Lock()


def report() -> tuple[str, dict[str, Any]]:
    """("ok" | "degraded" | "down", checks). Down: nothing can be accepted. Degraded: builds, or messages, wait."""
    futures = {name: _asked(name) for name in _CHECKS}
    wait(futures.values(), timeout=ANSWER_SECONDS)
    checks = {name: _result(future) for name, future in futures.items() if name not in ("workers", "deliveries")}
    checks |= _workers(_result(futures["workers"]))
    deliveries, are_stuck = _deliveries_shown(_result(futures["deliveries"]))
    checks["deliveries"] = deliveries
    if checks["database"] != "ok" or checks["storage"] != "ok":
        return "down", checks
    working = checks["redis"] == checks["docker"] == "ok" and checks["workers"]["alive"]
    is_moving = not checks["queue"]["paused"] and not are_stuck
    return ("ok" if working and is_moving else "degraded"), checks


def _asked(name: str) -> "Future[Any]":
    """The running check: a hanging one is waited for again and takes no second thread."""
    with _lock:
        if name not in _under_way or _under_way[name].done():
            _under_way[name] = _pool.submit(_apart, _CHECKS[name])
        return _under_way[name]


def _apart(check: Callable[[], Any]) -> Any:
    try:
        return check()
    finally:
        connection.close()


def _result(future: Future[Any]) -> Any:
    if not future.done():
        return "no response in time"
    fault = future.exception()
    return f"{type(fault).__name__}" if fault else future.result()


def _database() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return "ok"


def _redis() -> str:
    client = redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=0.6, socket_connect_timeout=0.6, retry=Retry(NoBackoff(), 0)
    )
    with client:
        client.ping()
    return "ok"


def _storage() -> str:
    name = default_storage.save("health/probe", ContentFile(b"ok"))
    default_storage.delete(name)
    return "ok"


def _hosts() -> dict[str, Any]:
    now = timezone.now()
    hosts = list(WorkerHost.objects.filter(seen_at__gt=now - HOST_SILENCE))
    ours = Build.objects.filter(is_external=False)  # builds of the external queue do not count
    queued = ours.filter(status=Status.QUEUED).aggregate(depth=Count("*"), oldest=Min("created_at"))
    oldest = queued["oldest"]
    faults = [host.engine_fault for host in hosts if host.engine_fault]
    return {
        "docker": "ok" if any(not host.engine_fault for host in hosts) else (faults or ["no workers"])[0],
        "workers": {
            "alive": sum(host.workers for host in hosts),
            "busy": ours.filter(status=Status.RUNNING).count(),
        },
        "queue": {
            "depth": queued["depth"],
            "oldestSeconds": round((now - oldest).total_seconds()) if oldest else 0,
            "paused": QueuePause.objects.exists(),
        },
    }


def _deliveries() -> dict[str, Any]:
    """Waiting deliveries: how many, how many seconds the oldest is overdue, and whether no sender runs."""
    now = timezone.now()
    pending = Delivery.objects.filter(status=Delivery.Status.PENDING)
    due = Delivery.objects.due(now).aggregate(oldest=Min("next_try_at"))["oldest"]
    late = round((now - due).total_seconds()) if due else 0
    return {
        "pending": pending.order_by()[:MOST_COUNTED].count(),
        "oldestSeconds": late,
        "are_stuck": late > DELIVERY_LATE_SECONDS and not is_there(Heartbeat.Service.SENDER),
    }


def _deliveries_shown(result: Any) -> tuple[dict[str, Any], bool]:
    if not isinstance(result, dict):
        return {"pending": 0, "oldestSeconds": 0}, False
    return {name: result[name] for name in ("pending", "oldestSeconds")}, result["are_stuck"]


def _workers(result: Any) -> dict[str, Any]:
    if isinstance(result, dict):
        return result
    return {"docker": "unknown", "workers": {"alive": 0, "busy": 0}, "queue": _UNKNOWN_QUEUE}


_UNKNOWN_QUEUE = {"depth": 0, "oldestSeconds": 0, "paused": False}
_CHECKS: dict[str, Callable[[], Any]] = {
    "database": _database,
    "redis": _redis,
    "storage": _storage,
    "workers": _hosts,
    "deliveries": _deliveries,
}
