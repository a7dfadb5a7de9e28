"""Webhooks in the API, over HTTP, against the real database."""

import io
import json
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from builds.models import Build, Delivery, WebhookEndpoint
from builds.webhooks import guard
from builds.webhooks.endpoints import create_for_installation
from chef.jobs.models import Status
from projects.models import IdempotencyKey, Project
from tests.builds.webhooks.sending import BAD, GOOD, advance, send_due, tell_all

MakeClient = Callable[..., APIClient]
URL = "https://example.com/hooks/chef"
RESULTS = ["build.completed", "build.failed", "build.cancelled"]
PAGE = {"index.html": "<h1>hi</h1>"}


@pytest.fixture
def client(owner: User, make_client: MakeClient) -> APIClient:
    return make_client(owner)


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Addresses by host name, so that the tests need no DNS server."""
    known = {"example.com": ["93.184.216.34"]}
    monkeypatch.setattr(guard, "system_resolver", lambda host, port: known.get(host, []))
    return known


def create(client: APIClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/webhooks", {"url": URL, "events": RESULTS, **body})
    assert answer.status_code == 201, answer.content
    return dict(answer.json())


def errors(answer: Any, status: int = 400) -> set[tuple[str, str | None]]:
    assert answer.status_code == status, answer.content
    return {(error["code"], error["attr"]) for error in answer.json()["errors"]}


def path(webhook: dict[str, Any], *rest: Any) -> str:
    return "/".join(["/v1/webhooks", webhook["webhookId"], *map(str, rest)])


# --- Endpoints ---------------------------------------------------------------------------------------------------


def test_a_secret_is_shown_once(client: APIClient) -> None:
    answer = client.post("/v1/webhooks", {"url": URL, "events": RESULTS})

    webhook = answer.json()
    assert webhook.pop("secret").startswith("whsec_")
    assert answer["Cache-Control"] == "no-store"
    assert answer["Location"] == webhook["links"]["self"]
    assert (webhook["url"], webhook["events"], webhook["project"], webhook["active"]) == (URL, RESULTS, None, True)
    assert client.get(path(webhook)).json() == webhook
    assert client.get("/v1/webhooks").json()["results"] == [webhook]


def test_a_webhook_can_belong_to_one_project(client: APIClient, queue_build: Callable[..., Build], other: User) -> None:
    mine, theirs = queue_build().project, queue_build(by=other).project
    webhook = create(client, project=str(mine.pk))

    assert webhook["project"] == str(mine.pk)
    assert [row["webhookId"] for row in client.get(f"/v1/webhooks?project={mine.pk}").json()["results"]] == [
        webhook["webhookId"]
    ]
    assert client.get(f"/v1/webhooks?project={theirs.pk}").json()["results"] == []
    refused = client.post("/v1/webhooks", {"url": URL, "events": RESULTS, "project": str(theirs.pk)})
    assert errors(refused) == {("not_found", "project")}


def test_all_errors_are_reported_at_once(client: APIClient) -> None:
    body = {"url": "http://127.0.0.1/", "events": ["build.done", "build.failed"], "project": "x", "colour": "red"}

    assert errors(client.post("/v1/webhooks", body)) == {
        ("https_only", "url"),
        ("invalid_choice", "events.0"),
        ("invalid", "project"),
        ("unknown_field", "colour"),
    }
    assert errors(client.post("/v1/webhooks", {})) == {("required", "url"), ("required", "events")}
    assert not WebhookEndpoint.objects.exists()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"url": "https://127.0.0.1/x"}, ("inward_url", "url")),
        ({"url": "https://[::ffff:10.0.0.1]/x"}, ("inward_url", "url")),
        ({"url": "https://2130706433/"}, ("invalid_url", "url")),
        ({"url": "https://inside.example.com/"}, ("inward_url", "url")),
        ({"url": "https://half.example.com/"}, ("inward_url", "url")),
        ({"url": "ftp://example.com"}, ("invalid_url", "url")),
        ({"url": ""}, ("blank", "url")),
        ({"url": "a\0b"}, ("invalid_url", "url")),
        ({"url": "https://example.com/" + "x" * 2000}, ("invalid_url", "url")),
        ({"url": 1}, ("invalid", "url")),
        ({"url": None}, ("null", "url")),
        ({"events": []}, ("min_length", "events")),
        ({"events": "build.failed"}, ("not_a_list", "events")),
        ({"events": ["build.failed"] * 21}, ("too_many", "events")),
        ({"events": [1]}, ("invalid_choice", "events.0")),
        ({"events": None}, ("null", "events")),
    ],
)
def test_an_invalid_webhook_is_refused(
    client: APIClient, names: dict[str, list[str]], body: dict[str, Any], expected: tuple[str, str]
) -> None:
    names |= {"inside.example.com": ["10.0.0.7"], "half.example.com": ["93.184.216.34", "::1"]}
    webhook = create(client)

    assert errors(client.post("/v1/webhooks", {"url": URL, "events": RESULTS, **body})) == {expected}
    assert errors(client.patch(path(webhook), body)) == {expected}
    assert client.get(path(webhook)).json()["updatedAt"] == webhook["updatedAt"]


def test_a_host_name_without_an_address_is_accepted(client: APIClient) -> None:
    assert create(client, url="https://soon.example.com/")["url"] == "https://soon.example.com/"


def test_duplicate_events_are_removed(client: APIClient) -> None:
    assert create(client, events=["build.failed", "build.failed"])["events"] == ["build.failed"]


def test_a_webhook_can_be_changed_and_switched_off_and_on(client: APIClient) -> None:
    webhook = create(client)

    changed = client.patch(path(webhook), {"events": ["build.running"], "active": False}).json()
    assert (changed["events"], changed["active"], changed["disabledReason"]) == (["build.running"], False, "owner")
    assert errors(client.post(path(webhook, "test")), 409) == {("webhook_disabled", None)}

    changed = client.patch(path(webhook), {"url": "https://example.com/b", "active": True}).json()
    assert (changed["url"], changed["active"], changed["disabledReason"]) == ("https://example.com/b", True, None)
    assert client.post(path(webhook, "test")).status_code == 202


def test_deleting_a_webhook_deletes_its_deliveries(client: APIClient) -> None:
    webhook = create(client)
    client.post(path(webhook, "test"))

    assert client.delete(path(webhook)).status_code == 204

    assert client.get(path(webhook)).status_code == 404
    assert not Delivery.objects.exists()


def test_rotating_returns_a_new_secret_and_the_old_one_s_expiry(client: APIClient) -> None:
    webhook = create(client)

    answer = client.post(path(webhook, "rotate"))

    delivery = answer.json()
    assert delivery["secret"].startswith("whsec_")
    assert delivery["secret"] != webhook["secret"]
    assert answer["Cache-Control"] == "no-store"
    until = datetime.fromisoformat(delivery["previousSecretUntil"])
    assert timedelta(hours=23) < until - timezone.now() <= timedelta(hours=24)


def test_the_number_of_an_owner_s_webhooks_is_limited(client: APIClient, settings: Settings) -> None:
    settings.OWNER_MAX_WEBHOOKS = 1
    create(client)

    assert errors(client.post("/v1/webhooks", {"url": URL, "events": RESULTS}), 409) == {("too_many_webhooks", None)}
    refused = client.post("/v1/projects", {"files": PAGE, "webhookUrl": URL})
    assert errors(refused, 409) == {("too_many_webhooks", None)}
    assert not Project.objects.exists()


def test_a_stored_answer_keeps_its_secret_encrypted(client: APIClient) -> None:
    body = {"url": URL, "events": RESULTS}

    first = client.post("/v1/webhooks", body, headers={"Idempotency-Key": "once"})
    again = client.post("/v1/webhooks", body, headers={"Idempotency-Key": "once"})

    assert (first.status_code, again.status_code, WebhookEndpoint.objects.count()) == (201, 201, 1)
    assert again.json() == first.json()
    assert (again["Idempotency-Replayed"], again["Cache-Control"]) == ("true", "no-store")
    assert first.json()["secret"].encode() not in bytes(IdempotencyKey.objects.get().answer)


def test_a_request_with_an_undecryptable_stored_answer_is_not_repeated(client: APIClient, settings: Settings) -> None:
    body = {"url": URL, "events": RESULTS}
    client.post("/v1/webhooks", body, headers={"Idempotency-Key": "once"})

    settings.SECRETS_KEYS = ["another" * 10]

    assert errors(client.post("/v1/webhooks", body, headers={"Idempotency-Key": "once"}), 422) == {
        ("idempotency_key_reused", None)
    }
    assert WebhookEndpoint.objects.count() == 1


def test_names_are_resolved_outside_the_transaction(
    client: APIClient, monkeypatch: pytest.MonkeyPatch, transactional_db: None
) -> None:
    seen = []
    original = guard.refusal_when_saved

    def recording(url: str) -> Any:
        seen.append(connection.in_atomic_block)
        return original(url)

    monkeypatch.setattr(guard, "refusal_when_saved", recording)
    for key in ("a", "b"):
        client.post("/v1/webhooks", {"url": URL, "events": RESULTS}, headers={"Idempotency-Key": key})
    client.post("/v1/projects", {"files": PAGE, "webhookUrl": URL}, headers={"Idempotency-Key": "c"})

    assert seen == [False, False, False]


def test_webhooks_of_the_installation_are_hidden_from_users(client: APIClient, owner: User) -> None:
    endpoint, _ = create_for_installation(url=URL, events=RESULTS)

    assert client.get("/v1/webhooks").json()["results"] == []
    assert client.get(f"/v1/webhooks/{endpoint.pk}").status_code == 404


# --- webhookUrl of a project -------------------------------------------------------------------------------------


def test_a_project_can_be_submitted_with_a_webhook(client: APIClient) -> None:
    answer = client.post("/v1/projects", {"files": PAGE, "webhookUrl": URL})

    accepted = answer.json()
    assert answer.status_code == 201
    assert accepted["webhookSecret"].startswith("whsec_")
    assert answer["Cache-Control"] == "no-store"
    project = f"/v1/projects/{accepted['projectId']}"
    assert client.get(project).json()["webhookUrl"] == URL
    assert client.get(project).json()["webhookSecret"] is None
    [webhook] = client.get("/v1/webhooks").json()["results"]
    assert (webhook["project"], webhook["events"]) == (accepted["projectId"], RESULTS)

    changed = client.patch(project, {"webhookUrl": "https://example.com/b"}).json()
    assert (changed["webhookUrl"], changed["webhookSecret"]) == ("https://example.com/b", None)
    assert client.patch(project, {"name": "x"}).json()["webhookUrl"] == "https://example.com/b"
    assert client.patch(project, {"webhookUrl": None}).json()["webhookUrl"] is None
    assert client.get("/v1/webhooks").json()["results"] == []
    again = client.patch(project, {"webhookUrl": URL})
    assert again.json()["webhookSecret"].startswith("whsec_")
    assert again["Cache-Control"] == "no-store"


def test_a_form_s_options_can_contain_a_webhook(client: APIClient) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("index.html", "<h1>hi</h1>")
    file.seek(0)
    file.name = "a.zip"
    good = {"archive": file, "options": json.dumps({"webhookUrl": URL})}

    answer = client.post("/v1/projects", good, format="multipart")

    assert answer.json()["webhookSecret"].startswith("whsec_")


def test_a_project_s_webhook_is_validated_with_the_other_fields(client: APIClient, names: dict[str, list[str]]) -> None:
    names["inside.example.com"] = ["169.254.169.254"]
    body = {"files": {"../x": ""}, "webhookUrl": "https://inside.example.com/"}

    assert errors(client.post("/v1/projects", body)) == {("invalid_path", "files.../x"), ("inward_url", "webhookUrl")}
    project = client.post("/v1/projects", {"files": PAGE}).json()["projectId"]
    refused = client.patch(f"/v1/projects/{project}", {"webhookUrl": "https://inside.example.com/"})
    assert errors(refused) == {("inward_url", "webhookUrl")}
    assert not WebhookEndpoint.objects.exists()


# --- Deliveries --------------------------------------------------------------------------------------------------


def deliveries(client: APIClient, webhook: dict[str, Any], **query: Any) -> list[dict[str, Any]]:
    answer = client.get(path(webhook, "deliveries"), query)
    assert answer.status_code == 200, answer.content
    return list(answer.json()["results"])


def test_deliveries_are_shown_with_every_attempt(client: APIClient, queue_build: Callable[..., Build]) -> None:
    webhook = create(client)
    build = advance(queue_build(), Status.RUNNING, Status.COMPLETED)
    send_due(BAD)
    Delivery.objects.update(next_try_at=timezone.now())
    send_due(GOOD)

    [delivery] = deliveries(client, webhook)

    assert (delivery["event"], delivery["status"], delivery["jobId"]) == ("build.completed", "delivered", str(build.pk))
    assert delivery["message"]["data"]["jobId"] == str(build.pk)
    assert delivery["nextTryAt"] is None
    assert [(each["number"], each["statusCode"], each["answer"]) for each in delivery["tries"]] == [
        (1, 500, "not today"),
        (2, 204, None),
    ]


def test_deliveries_are_filtered_and_paged(client: APIClient, queue_build: Callable[..., Build]) -> None:
    webhook = create(client, events=["build.queued", "build.running"])
    advance(queue_build(), Status.RUNNING)
    send_due(GOOD)
    queue_build()
    client.post(path(webhook, "test"))
    send_due(BAD)

    assert len(deliveries(client, webhook)) == 4
    assert [each["event"] for each in deliveries(client, webhook, status="pending")] == ["build.queued", "webhook.test"]
    assert len(deliveries(client, webhook, event="build.queued")) == 2
    assert errors(client.get(path(webhook, "deliveries"), {"status": "lost"})) == {("invalid_choice", "status")}
    first = client.get(path(webhook, "deliveries"), {"limit": 3}).json()
    second = client.get(first["next"]).json()
    assert (len(first["results"]), len(second["results"])) == (3, 1)


def test_more_deliveries_and_attempts_need_no_more_queries(
    client: APIClient, queue_build: Callable[..., Build]
) -> None:
    webhook = create(client, events=["build.queued"])
    queue_build()
    send_due(BAD)
    with CaptureQueriesContext(connection) as few:
        assert len(deliveries(client, webhook)) == 1
    for _ in range(4):
        queue_build()
        Delivery.objects.update(next_try_at=timezone.now())
        send_due(BAD)
    with CaptureQueriesContext(connection) as many:
        assert len(deliveries(client, webhook)) == 5

    assert len(many) == len(few)


def test_a_test_message_is_sent_as_its_own_event(client: APIClient) -> None:
    webhook = create(client)

    answer = client.post(path(webhook, "test"))

    delivery = answer.json()
    assert (answer.status_code, delivery["event"], delivery["status"], delivery["jobId"]) == (
        202,
        "webhook.test",
        "pending",
        None,
    )
    assert delivery["message"]["data"]["webhookId"] == webhook["webhookId"]
    [sent] = send_due(GOOD)
    assert str(sent.id) == delivery["deliveryId"]


def test_one_delivery_or_a_range_can_be_replayed(client: APIClient, queue_build: Callable[..., Build]) -> None:
    webhook = create(client, events=["build.queued"])
    queue_build(), queue_build()
    send_due(GOOD)
    first, second = deliveries(client, webhook)

    answer = client.post(path(webhook, "deliveries", first["deliveryId"], "replay"))
    assert (answer.status_code, answer.json()["status"]) == (202, "pending")
    assert [str(sent.id) for sent in send_due(GOOD)] == [first["deliveryId"]]

    hour = timedelta(hours=1)
    span = {"from": (timezone.now() - hour).isoformat(), "to": (timezone.now() + hour).isoformat()}
    assert client.post(path(webhook, "replay"), {**span, "status": "failed"}).json() == {"replayed": 0}
    assert client.post(path(webhook, "replay"), span).json() == {"replayed": 2}
    assert {str(sent.id) for sent in send_due(GOOD)} == {first["deliveryId"], second["deliveryId"]}


def test_events_missed_while_off_can_be_replayed(client: APIClient, queue_build: Callable[..., Build]) -> None:
    webhook = create(client, events=["build.queued"])
    client.patch(path(webhook), {"active": False})
    queue_build()
    tell_all()
    hour = timedelta(hours=1)
    span = {"from": (timezone.now() - hour).isoformat(), "to": (timezone.now() + hour).isoformat()}
    assert client.post(path(webhook, "replay"), span).status_code == 409
    client.patch(path(webhook), {"active": True})

    assert client.post(path(webhook, "replay"), {**span, "status": "delivered"}).json() == {"replayed": 0}
    assert client.post(path(webhook, "replay"), {**span, "status": "missed"}).json() == {"replayed": 1}
    assert client.post(path(webhook, "replay"), {**span, "status": "missed"}).json() == {"replayed": 0}
    assert len(send_due(GOOD)) == 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, {("required", "from"), ("required", "to")}),
        ({"from": "2026-01-01", "to": "soon"}, {("invalid", "from"), ("invalid", "to")}),
        ({"from": "2026-01-01T00:00:00", "to": "0001-01-01T00:00:00+14:00"}, {("invalid", "from"), ("invalid", "to")}),
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, {("out_of_range", "to")}),
        (
            {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "status": "pending"},
            {("invalid_choice", "status")},
        ),
    ],
)
def test_an_invalid_range_is_refused(client: APIClient, body: dict[str, Any], expected: Any) -> None:
    assert errors(client.post(path(create(client), "replay"), body)) == expected


def test_another_webhook_s_delivery_is_not_found(client: APIClient) -> None:
    webhook, another = create(client), create(client)
    delivery = client.post(path(webhook, "test")).json()["deliveryId"]

    assert client.post(path(another, "deliveries", delivery, "replay")).status_code == 404
    assert client.post(path(webhook, "deliveries", another["webhookId"], "replay")).status_code == 404
