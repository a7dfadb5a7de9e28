"""Fixtures for the tests of webhooks: local receivers, their endpoints, and builds that change status."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from builds.models import Build, EventName, WebhookEndpoint
from builds.webhooks import endpoints
from chef.jobs.models import Status
from projects.models import Project
from tests.builds.webhooks.sending import advance
from tests.receiver import Receiver


@pytest.fixture
def receiver(settings: Settings) -> Iterator[Receiver]:
    """A local receiver over plain HTTP, which this installation allows."""
    settings.WEBHOOK_ALLOW_HTTP = True
    with Receiver() as receiver:
        settings.WEBHOOK_ALLOWED_HOSTS = [*settings.WEBHOOK_ALLOWED_HOSTS, receiver.host]
        yield receiver


@pytest.fixture
def make_endpoint(owner: User) -> Callable[..., WebhookEndpoint]:
    def make(
        url: str = "https://example.com/hooks",
        *,
        by: User | None = None,
        events: list[str] | None = None,
        project: Project | None = None,
    ) -> WebhookEndpoint:
        wanted = EventName.values if events is None else events
        return endpoints.create_endpoint(by=by or owner, url=url, events=wanted, project=project)[0]

    return make


@pytest.fixture
def move(queue_build: Callable[..., Build]) -> Callable[..., Build]:
    """A build that has gone through these statuses after being queued."""

    def moved(*statuses: Status, **options: Any) -> Build:
        return advance(queue_build(**options), *statuses)

    return moved


@pytest.fixture
def usual_retries(settings: Settings) -> None:
    settings.WEBHOOK_RETRY_SECONDS, settings.WEBHOOK_RETRY_MAX_SECONDS = 5, 3600
