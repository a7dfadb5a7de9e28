"""A project's settings and webhooks: changes, refusals, and secrets that are never shown."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from builds.models import Build, Delivery, DeliveryTry, WebhookEndpoint
from builds.webhooks.endpoints import create_endpoint
from projects.environment import environment_for
from projects.models import EnvironmentVariable, Project
from tests.builds.pages.rows import completed, path_of

pytestmark = pytest.mark.once

QueueBuild = Callable[..., Build]


# --- Settings ----------------------------------------------------------------------------------------------------


def test_a_project_is_renamed(queue_build: QueueBuild, browser: Client) -> None:
    build = queue_build()

    browser.post(path_of(build, "/settings"), {"do": "rename", "name": "bees"})
    refused = browser.post(path_of(build, "/settings"), {"do": "rename", "name": "x" * 101})

    assert refused.status_code == 422
    assert Project.objects.get().name == "bees"


def test_variables_are_set_replaced_and_removed_and_a_secret_is_never_shown(
    queue_build: QueueBuild, browser: Client
) -> None:
    build = queue_build()
    where = path_of(build, "/settings")

    browser.post(where, {"do": "set", "name": "MODE", "value": "fast"})
    browser.post(where, {"do": "set", "name": "KEY", "value": "a secret value", "is_secret": "on"})
    browser.post(
        where, {"do": "set", "name": "NPM", "value": "another secret", "is_secret": "on", "installation": "on"}
    )
    page = browser.get(where).content.decode()
    assert "fast" in page
    assert "a secret value" not in page
    assert "another secret" not in page
    environment = environment_for(build.project)
    assert dict(environment.installation) == {"MODE": "fast", "NPM": "another secret"}
    assert environment.build["KEY"] == "a secret value"

    browser.post(where, {"do": "set", "name": "KEY", "value": "a newer secret", "is_secret": "on"})
    browser.post(where, {"do": "remove", "name": "MODE"})
    browser.post(where, {"do": "remove", "name": "NPM"})
    assert dict(environment_for(build.project).build) == {"KEY": "a newer secret"}
    browser.post(where, {"do": "remove", "name": "no name at all"})
    assert EnvironmentVariable.objects.count() == 1


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"name": "PATH", "value": "x"}, "PATH cannot be set here"),
        ({"name": "2", "value": "x"}, "A name has letters"),
        ({"name": "KEY", "value": "short", "is_secret": "on"}, "at least 8 characters"),
    ],
)
def test_an_invalid_variable_is_reported(
    queue_build: QueueBuild, browser: Client, typed: dict[str, str], message: str
) -> None:
    answer = browser.post(path_of(queue_build(), "/settings"), {"do": "set", **typed})

    assert answer.status_code == 422
    assert message in answer.content.decode()
    assert 'under <a href="#environment">Environment</a>' in answer.content.decode()
    assert not EnvironmentVariable.objects.exists()


def test_a_changed_strategy_is_a_new_revision_of_the_same_files(queue_build: QueueBuild, browser: Client) -> None:
    build = completed(queue_build(strategy={"installCommand": "npm ci", "timeout": 60_000}))
    where = path_of(build, "/settings")
    form = browser.get(where).context["page"].strategy
    shown = {field.html_name: field.value() or "" for field in form}
    assert shown["runtime"] == "node/22"

    browser.post(where, {"do": "strategy", **shown, "build_command": "make"})

    newest = Build.objects.get(number=2).revision
    assert newest.number == 2
    # The build command is new, the install command was requested before; everything else is detected.
    assert newest.strategy == {"installCommand": "npm ci", "timeout": 60_000, "buildCommand": "make"}
    assert newest.files.count() == build.revision.files.count()
    refused = browser.post(where, {"do": "strategy", **shown, "root_dir": "/x"})
    assert "The path is absolute" in refused.content.decode()
    assert Build.objects.count() == 2


def test_a_project_is_deleted_after_its_name_is_typed(queue_build: QueueBuild, browser: Client) -> None:
    build = completed(queue_build(name="bees & co"))
    browser.post(path_of(build, "/releases"), {"do": "publish"})

    refused = browser.post(path_of(build, "/settings"), {"do": "delete", "name": "bees"})
    assert refused.status_code == 422
    assert "not the project&#x27;s name" in refused.content.decode()
    done = browser.post(path_of(build, "/settings"), {"do": "delete", "name": "bees & co"})
    assert done.headers["Location"] == "/"
    assert not Project.objects.exists()


# --- Webhooks ----------------------------------------------------------------------------------------------------


@pytest.fixture
def endpoint(queue_build: QueueBuild, owner: User) -> WebhookEndpoint:
    project = queue_build().project
    url = "https://example.com/hooks"
    return create_endpoint(by=owner, url=url, events=["build.failed"], project=project)[0]


def hook_path(endpoint: WebhookEndpoint) -> str:
    return f"/projects/{endpoint.project_id}/webhooks/{endpoint.pk}"


def test_a_webhook_is_added_and_its_secret_shown_once(
    queue_build: QueueBuild, browser: Client, settings: Settings
) -> None:
    settings.WEBHOOK_ALLOWED_HOSTS, settings.WEBHOOK_ALLOW_HTTP = ["127.0.0.1:9"], True
    where = path_of(queue_build(), "/settings")
    typed = {"do": "webhook", "url": "http://127.0.0.1:9/in", "events": ["build.failed", "build.completed"]}

    added = browser.post(where, typed)
    first = browser.get(added.headers["Location"])
    again = browser.get(added.headers["Location"])

    assert "whsec_" in first.content.decode()
    assert first.headers["Cache-Control"] == "no-store"
    assert "whsec_" not in again.content.decode()
    assert WebhookEndpoint.objects.get().events == ["build.failed", "build.completed"]
    assert "http://127.0.0.1:9/in" in browser.get(where).content.decode()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"url": "https://127.0.0.1/", "events": ["build.failed"]}, "127.0.0.1"),
        ({"url": "nonsense", "events": ["build.failed"]}, "https://"),
        ({"url": "https://example.com/", "events": []}, "Choose at least one event"),
    ],
)
def test_an_invalid_webhook_is_reported(
    queue_build: QueueBuild, browser: Client, typed: dict[str, Any], message: str
) -> None:
    answer = browser.post(path_of(queue_build(), "/settings"), {"do": "webhook", **typed})

    assert answer.status_code == 422
    assert message in answer.content.decode()
    assert not WebhookEndpoint.objects.exists()


def test_a_webhook_is_tested_switched_rotated_replayed_and_deleted(browser: Client, endpoint: WebhookEndpoint) -> None:
    where = hook_path(endpoint)

    browser.post(where, {"do": "test"})
    delivery = Delivery.objects.get()
    DeliveryTry.objects.create(
        delivery=delivery, number=1, status_code=500, duration_ms=12, is_over=True, answer="<script>no</script>"
    )
    Delivery.objects.update(status="failed", finished_at=timezone.now(), tries=1)
    page = browser.get(where).content.decode()
    assert "answered 500 in 12 ms" in page
    assert "&lt;script&gt;no" in page
    browser.post(where, {"do": "replay", "delivery": str(delivery.pk)})
    assert Delivery.objects.get().status == "pending"
    for unknown in ("x", str(uuid4())):
        message = browser.post(where, {"do": "replay", "delivery": unknown}, follow=True).content.decode()
        assert "not kept any more" in message

    rotated = browser.post(where, {"do": "rotate"}, follow=True).content.decode()
    assert "whsec_" in rotated
    browser.post(where, {"do": "off"})
    assert WebhookEndpoint.objects.get().disabled_reason == "owner"
    assert "switched off" in browser.post(where, {"do": "test"}, follow=True).content.decode()
    browser.post(where, {"do": "on"})
    assert WebhookEndpoint.objects.get().is_active
    browser.post(where, {"do": "delete"})
    assert not WebhookEndpoint.objects.exists()
