"""Rate limits of reads and writes and their headers; without Redis, requests pass without delay."""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory, force_authenticate
from rest_framework.views import APIView

from chef.settings import env_rate
from chef.web.rate_limits import RateLimitedMixin, address_of, check
from tests.installation import until
from tests.ports import answers, free_port

pytestmark = [pytest.mark.once, pytest.mark.redis]


class View(RateLimitedMixin, APIView):
    def get(self, request: Request) -> Response:
        return Response({})

    post = get


@pytest.fixture(autouse=True)
def _own_budgets(settings: Any) -> None:
    settings.INSTALLATION = f"test-{uuid.uuid4().hex[:8]}"
    settings.RATE_READ, settings.RATE_WRITE, settings.RATE_ANONYMOUS = "3/minute", "2/minute", "2/minute"


def ask(user: Any, method: str = "get", **meta: Any) -> Any:
    request = getattr(APIRequestFactory(), method)("/v1/x", **meta)
    force_authenticate(request, user)
    return View.as_view()(request).render()


def test_each_answer_has_the_remaining_budget(owner: User) -> None:
    answer = ask(owner, "post")

    assert answer["RateLimit-Policy"] == '"write";q=2;w=60'
    assert answer["RateLimit"].startswith('"write";r=1;t=')


def test_a_request_beyond_the_limit_gets_retry_after(owner: User) -> None:
    answers = [ask(owner, "post") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].data["errors"][0]["code"] == "throttled"
    assert 1 <= int(answers[2]["Retry-After"]) <= 60
    assert '"write";r=0' in answers[2]["RateLimit"]


def test_reads_writes_and_owners_have_separate_budgets(owner: User, other: User) -> None:
    for _ in range(3):
        ask(owner, "post")

    assert ask(owner).status_code == 200
    assert ask(other, "post").status_code == 200


def test_anonymous_requests_are_limited_by_address(db: None) -> None:
    answers = [ask(AnonymousUser(), REMOTE_ADDR="10.0.0.1").status_code for _ in range(3)]

    assert answers == [401, 401, 429]
    assert ask(AnonymousUser(), REMOTE_ADDR="10.0.0.2").status_code == 401


def test_a_forwarded_address_counts_only_behind_a_proxy(settings: Any) -> None:
    request = APIRequestFactory().get("/", REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR="1.1.1.1, 2.2.2.2")

    settings.BEHIND_PROXY = False
    assert address_of(request) == "10.0.0.1"
    settings.BEHIND_PROXY = True
    assert address_of(request) == "2.2.2.2"


def test_without_a_rate_nothing_is_counted(settings: Any) -> None:
    settings.RATE_READ = ""

    assert check(1, "read") is None


def test_an_invalid_rate_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHEF_RATE_READ", "many")

    with pytest.raises(ImproperlyConfigured, match="write one such as 600/minute"):
        env_rate("CHEF_RATE_READ", "1/minute")


# --- Without Redis -------------------------------------------------------------------------------------------------


@pytest.fixture
def own_redis(tmp_path: Path, settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    port = free_port()
    argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    until(lambda: answers(port), seconds=10, what="Redis answers")
    settings.REDIS_URL = f"redis://127.0.0.1:{port}/0"
    yield server
    server.send_signal(signal.SIGCONT)
    server.kill()
    server.wait(10)


@pytest.mark.parametrize("fate", [signal.SIGSTOP, signal.SIGKILL])
def test_a_hanging_or_missing_redis_lets_requests_pass_fast(
    own_redis: subprocess.Popen[bytes], fate: signal.Signals
) -> None:
    check(1, "write")
    os.kill(own_redis.pid, fate)

    started = time.monotonic()
    decisions = [check(1, "write") for _ in range(100)]
    took = time.monotonic() - started

    assert all(decision and decision.allowed for decision in decisions)
    assert took < 1.5  # one time-out, then a pause
