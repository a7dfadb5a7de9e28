from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings
from rest_framework.test import APIClient

from tests.builds.api.external.messages import QueueBuild
from tests.builds.signing import SECRET, send


@pytest.fixture(autouse=True)
def _secret(settings: Settings) -> None:
    settings.WORKER_SECRETS = [SECRET]


@pytest.fixture
def client(owner: User, make_client: Callable[..., APIClient]) -> APIClient:
    return make_client(owner)


@pytest.fixture
def claimed(queue_build: QueueBuild) -> dict[str, Any]:
    """The answer to a claim: the build as its builder receives it."""
    queue_build(is_external=True)
    answer = send("claim", {"worker": "ann's machine"})
    assert answer.status_code == 200, answer.content
    return dict(answer.json())
