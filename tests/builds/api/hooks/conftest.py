from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings
from rest_framework.test import APIClient

from tests.builds.api.hooks.messages import QueueBuild
from tests.builds.signing import SECRET, send


@pytest.fixture(autouse=True)
def _secret(settings: Settings) -> None:
    settings.WORKER_SECRETS = [SECRET]


@pytest.fixture
def client(owner: User, make_client: Callable[..., APIClient]) -> APIClient:
    return make_client(owner)


@pytest.fixture
def taken(queue_build: QueueBuild) -> dict[str, Any]:
    """What a builder is told of the build that it has claimed."""
    queue_build(is_external=True)
    answer = send("claim", {"worker": "ann's machine"})
    assert answer.status_code == 200, answer.content
    return dict(answer.json())
