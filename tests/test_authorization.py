"""Authorization of every API operation in the schema: a token is required, a read token cannot write, others' objects
are 404. Operations for signed messages require a signature, and accept no token instead.
"""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings
from rest_framework.test import APIClient

from builds.api.schema.views import document
from builds.models import Build, Delivery, WebhookEndpoint
from builds.webhooks.endpoints import create_endpoint
from builds.webhooks.outbox import send_test
from projects.models import Generation, Project
from tests.builds.signing import SECRET

pytestmark = pytest.mark.once

OPEN = {"/health", "/health/live"}
HOOKS = "/v1/hooks/"


OPERATIONS = [(method, path) for path, methods in document()["paths"].items() for method in methods if path not in OPEN]
BY_TOKEN = [operation for operation in OPERATIONS if not operation[1].startswith(HOOKS)]
BY_SIGNATURE = [operation for operation in OPERATIONS if operation[1].startswith(HOOKS)]


def send(client: APIClient, method: str, path: str, build: Build) -> Any:
    """Send a request to an operation, with ids and numbers of existing objects."""
    known: dict[str, Any] = {"id": build.project_id, "number": 1}
    if path.startswith("/v1/builds"):
        known["id"] = build.pk
    elif path.startswith("/v1/generations"):
        project, kind = build.project, Generation.Kind.NEW
        generation = Generation.objects.create(project=project, owner=build.owner, kind=kind, prompt="x", max_tokens=1)
        known["id"] = generation.pk
    elif path.startswith("/v1/webhooks"):
        url = "https://example.com/hooks"
        webhook, _ = create_endpoint(by=build.owner, url=url, events=["build.completed"], project=build.project)
        known |= {"id": webhook.pk, "delivery": send_test(webhook).pk}
    known |= {"path": "index.html", "name": "dist/index.html", "token": "x"}
    address = re.sub(r"\{(\w+)\}", lambda match: str(known[match[1]]), path)
    return getattr(client, method)(address)


def codes(answer: Any) -> tuple[int, set[str]]:
    document = answer.json()
    assert set(document) == {"type", "errors"}
    return answer.status_code, {error["code"] for error in document["errors"]}


@pytest.mark.parametrize(("method", "path"), BY_TOKEN)
def test_a_request_without_a_token_is_refused(method: str, path: str, queue_build: Callable[..., Build]) -> None:
    answer = send(APIClient(), method, path, queue_build())

    assert codes(answer) == (401, {"not_authenticated"})
    assert answer["WWW-Authenticate"] == 'Bearer realm="chef"'


@pytest.mark.parametrize(("method", "path"), [operation for operation in BY_TOKEN if operation[0] != "get"])
def test_a_read_token_cannot_write(
    method: str, path: str, owner: User, make_client: Callable[..., APIClient], queue_build: Callable[..., Build]
) -> None:
    build = queue_build()

    answer = send(make_client(owner, scope="read"), method, path, build)

    assert codes(answer) == (403, {"insufficient_scope"})
    assert (Project.objects.count(), Build.objects.count(), Build.objects.get().status) == (1, 1, "queued")
    assert {generation.status for generation in Generation.objects.all()} <= {"queued"}
    assert set(Delivery.objects.values_list("tries", "endpoint__disabled_reason")) <= {(0, "")}
    assert WebhookEndpoint.objects.count() == Delivery.objects.count() == int(path.startswith("/v1/webhooks"))


@pytest.mark.parametrize(("method", "path"), [operation for operation in BY_TOKEN if "{" in operation[1]])
def test_other_users_objects_are_404(
    method: str, path: str, other: User, make_client: Callable[..., APIClient], queue_build: Callable[..., Build]
) -> None:
    build = queue_build()

    answer = send(make_client(other, scope="publish"), method, path, build)

    assert codes(answer) == (404, {"not_found"})
    assert (Project.objects.count(), Build.objects.get().status) == (1, "queued")


@pytest.mark.parametrize(("method", "path"), BY_SIGNATURE)
def test_a_token_does_not_replace_a_signature(
    method: str,
    path: str,
    owner: User,
    make_client: Callable[..., APIClient],
    queue_build: Callable[..., Build],
    settings: Settings,
) -> None:
    settings.WORKER_SECRETS = [SECRET]
    build = queue_build(is_external=True)

    answers = [send(client, method, path, build) for client in (APIClient(), make_client(owner, scope="publish"))]

    refusal = (403, {"invalid_link"}) if method == "get" else (401, {"unsigned_message"})
    assert [codes(answer) for answer in answers] == [refusal] * 2
    assert Build.objects.get().status == "queued"


@pytest.mark.parametrize(("method", "path"), [operation for operation in BY_SIGNATURE if operation[0] == "post"])
def test_signed_messages_are_refused_without_external_builders(
    method: str, path: str, queue_build: Callable[..., Build], settings: Settings
) -> None:
    settings.WORKER_SECRETS = []

    assert codes(send(APIClient(), method, path, queue_build())) == (403, {"no_outside_builder"})


def test_lists_contain_nothing_of_other_users(
    other: User, make_client: Callable[..., APIClient], queue_build: Callable[..., Build]
) -> None:
    build, client = queue_build(), make_client(other)

    Generation.objects.create(project=build.project, owner=build.owner, kind="new", prompt="x", max_tokens=1)
    create_endpoint(by=build.owner, url="https://example.com", events=["build.failed"], project=None)
    lists = ("/v1/projects", "/v1/builds", "/v1/generations", "/v1/webhooks")
    for path in (*lists, f"/v1/builds?project={build.project_id}", f"/v1/webhooks?project={build.project_id}"):
        assert client.get(path).json() == {"results": [], "next": None, "previous": None}
