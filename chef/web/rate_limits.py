"""Rate limits: for each owner's reads and writes, and for each address without a token or session.

Counted in Redis, for all web processes together. If Redis does not answer, everything is allowed: a failed counter must
not stop the service. Limits on queued builds are elsewhere: see `chef.jobs.capacity`.
"""

import logging
import math
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import redis
from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from limits import RateLimitItem, parse
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis.backoff import NoBackoff
from redis.retry import Retry
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated, PermissionDenied, Throttled
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

logger = logging.getLogger(__name__)

Kind = Literal["read", "write", "anonymous"]

# A request waits at most this long for Redis; then nothing is counted for PAUSE_SECONDS.
REDIS_SECONDS = 0.25
PAUSE_SECONDS = 5.0


@dataclass(frozen=True)
class Decision:
    """Whether a request is allowed, and what is left: `remaining` requests; all `limit` again in `reset` seconds."""

    kind: Kind
    allowed: bool
    limit: int
    window: int
    remaining: int
    reset: int

    @property
    def headers(self) -> dict[str, str]:
        """The headers of draft-ietf-httpapi-ratelimit-headers, and Retry-After with a refusal."""
        headers = {
            "RateLimit-Policy": f'"{self.kind}";q={self.limit};w={self.window}',
            "RateLimit": f'"{self.kind}";r={self.remaining};t={self.reset}',
        }
        return headers if self.allowed else {**headers, "Retry-After": str(self.reset)}

    @property
    def detail(self) -> str:
        per = f"{self.limit:,} {self.kind} requests in {self.window:,} s"
        return f"More than {per}: wait {self.reset} s, then send fewer."


def check(owner_id: int | str, kind: Kind) -> Decision | None:
    """Count one request of an owner (or an address). None if there is no limit."""
    rate = {"read": settings.RATE_READ, "write": settings.RATE_WRITE, "anonymous": settings.RATE_ANONYMOUS}[kind]
    return _counter(settings.REDIS_URL, settings.INSTALLATION).count(kind, parse(rate), str(owner_id)) if rate else None


def address_of(request: HttpRequest | Request) -> str:
    """The client's address; behind a proxy, the last one in the header: that which the proxy itself added."""
    if settings.BEHIND_PROXY and (forwarded := request.META.get("HTTP_X_FORWARDED_FOR")):
        return str(forwarded).rpartition(",")[2].strip()
    return str(request.META.get("REMOTE_ADDR", ""))


class Counter:
    """Counts in Redis; pauses for a while when it does not answer."""

    def __init__(self, url: str, prefix: str) -> None:
        options: dict[str, Any] = {"socket_timeout": REDIS_SECONDS, "socket_connect_timeout": REDIS_SECONDS}
        options["retry"] = Retry(NoBackoff(), 0)
        self._windows = SlidingWindowCounterRateLimiter(RedisStorage(url, key_prefix=f"{prefix}:rate", **options))
        self._silent_until = 0.0

    def count(self, kind: Kind, rate: RateLimitItem, who: str) -> Decision:
        limit, window = rate.amount, rate.get_expiry()
        if time.monotonic() < self._silent_until:
            return Decision(kind, True, limit, window, limit, window)
        try:
            allowed = self._windows.hit(rate, kind, who)
            left = self._windows.get_window_stats(rate, kind, who)
        except redis.RedisError as error:
            self._silent_until = time.monotonic() + PAUSE_SECONDS
            logger.warning("Redis does not answer (%s); for %g s, requests are not counted", error, PAUSE_SECONDS)
            return Decision(kind, True, limit, window, limit, window)
        reset = max(1, math.ceil(left.reset_time - time.time()))
        return Decision(kind, allowed, limit, window, max(0, left.remaining), reset)


@lru_cache(maxsize=8)
def _counter(url: str, prefix: str) -> Counter:
    return Counter(url, prefix)


class RateLimitedMixin:
    """Mix in before APIView or ViewSet: counts each request, and says in each response what is left."""

    decision: Decision | None = None

    def initial(self: Any, request: Request, *args: Any, **kwargs: Any) -> None:
        try:
            super().initial(request, *args, **kwargs)  # type: ignore[misc]
        except (AuthenticationFailed, NotAuthenticated, PermissionDenied):
            # Guessing tokens is limited by address, because there is no owner.
            self._spend(address_of(request), "anonymous")
            raise

    def check_throttles(self, request: Request) -> None:
        """Called by DRF after authentication and permission checks."""
        if request.user and request.user.is_authenticated:
            self._spend(request.user.pk, "read" if request.method in SAFE_METHODS else "write")
        else:
            self._spend(address_of(request), "anonymous")

    def finalize_response(self: Any, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        answer: HttpResponseBase = super().finalize_response(request, response, *args, **kwargs)  # type: ignore[misc]
        for name, value in (self.decision.headers if self.decision else {}).items():
            answer[name] = value
        return answer

    def _spend(self, who: int | str, kind: Kind) -> None:
        self.decision = check(who, kind)
        if self.decision and not self.decision.allowed:
            raise Throttled(detail=self.decision.detail)
