"""Endpoints: secrets and their rotation, the endpoint from settings, and the database's constraints."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from pytest_django import Settings
from standardwebhooks import Webhook, WebhookVerificationError

from builds.checks import convex_is_usable
from builds.models import RESULT_EVENTS, Build, WebhookEndpoint
from builds.webhooks import endpoints, outbox
from builds.webhooks.endpoints import follow_settings, rotate_secret, set_project_webhook
from chef.jobs.models import Status
from chef.storage.sealing import WEBHOOKS, UnsealError, seal, unseal
from tests.builds.webhooks.sending import pass_time, send_due
from tests.receiver import Message, Receiver

pytestmark = pytest.mark.once

MakeEndpoint = Callable[..., WebhookEndpoint]
Move = Callable[..., Build]
DONE = (Status.RUNNING, Status.COMPLETED)
SECRET = "whsec_" + "QUJD" * 8


def opens(secret: str, message: Message) -> bool:
    """Whether the reference library verifies the message with this secret."""
    try:
        Webhook(secret).verify(message.body, message.headers)
    except WebhookVerificationError:
        return False
    return True


# --- Secrets -----------------------------------------------------------------------------------------------------


def test_the_reference_library_verifies_a_message(
    receiver: Receiver, owner: Any, move: Move, settings: Settings
) -> None:
    endpoint, secret = endpoints.create_endpoint(by=owner, url=receiver.url, events=list(RESULT_EVENTS), project=None)
    build = move(*DONE)

    send_due()

    [message] = receiver.messages
    payload = Webhook(secret).verify(message.body, message.headers)
    assert (payload["type"], payload["data"]["jobId"]) == ("build.completed", str(build.pk))
    assert message.id == str(endpoint.deliveries.get().pk)
    forged = Message(message.path, message.headers, message.body.replace(b"completed", b"cancelled"))
    assert not opens(secret, forged)
    assert not opens(SECRET, message)
    other = Message(message.path, {**message.headers, "webhook-id": "another"}, message.body)
    assert not opens(secret, other)


def test_a_secret_is_encrypted_in_the_database_for_its_purpose(make_endpoint: MakeEndpoint) -> None:
    endpoint = make_endpoint()

    [secret] = endpoints.keys_of(endpoint)

    assert len(secret) == len("whsec_") + 44
    assert secret not in endpoint.sealed_secret
    with pytest.raises(UnsealError):
        unseal(endpoint.sealed_secret)
    with pytest.raises(UnsealError):
        unseal(seal("a variable"), WEBHOOKS)


def test_both_secrets_sign_for_a_day(receiver: Receiver, owner: Any) -> None:
    endpoint, old = endpoints.create_endpoint(by=owner, url=receiver.url, events=[], project=None)

    endpoint, new = rotate_secret(endpoint)
    outbox.send_test(endpoint)
    send_due()
    pass_time(hours=24)
    outbox.send_test(endpoint)
    send_due()

    first, second = receiver.messages
    assert new != old
    assert len(first.headers["webhook-signature"].split()) == 2
    assert (opens(old, first), opens(new, first)) == (True, True)
    assert (opens(old, second), opens(new, second)) == (False, True)


def test_resealing_encrypts_webhook_secrets_with_the_newest_key(
    make_endpoint: MakeEndpoint, settings: Settings
) -> None:
    settings.SECRETS_KEYS = ["old" * 20]
    endpoint, new = rotate_secret(make_endpoint())
    settings.SECRETS_KEYS = ["new" * 20, "old" * 20]

    call_command("reseal_environment", verbosity=0)

    settings.SECRETS_KEYS = ["new" * 20]
    endpoint.refresh_from_db()
    assert endpoints.keys_of(endpoint)[0] == new
    assert len(endpoints.keys_of(endpoint)) == 2
    settings.SECRETS_KEYS = ["another" * 10]
    with pytest.raises(CommandError, match=r"webhook .* of owner"):
        call_command("reseal_environment", verbosity=0)


def test_a_secret_without_a_key_is_reported_in_the_tries(
    receiver: Receiver, make_endpoint: MakeEndpoint, move: Move, settings: Settings
) -> None:
    endpoint = make_endpoint(receiver.url)
    move()
    settings.SECRETS_KEYS = ["another" * 10]

    send_due()

    tried = endpoint.deliveries.get().log.get()
    assert (tried.error, receiver.messages) == ("secret_unreadable", [])


# --- A project's own ---------------------------------------------------------------------------------------------


def test_a_project_has_one_own_webhook(move: Move) -> None:
    project = move().project

    secret = set_project_webhook(project, "https://example.com/a")
    [made] = project.webhooks.all()
    again = set_project_webhook(project, "https://example.com/b")

    assert (secret or "").startswith("whsec_")
    assert again is None  # the URL is new, the secret is the same
    [changed] = project.webhooks.all()
    assert (changed.pk, changed.url, changed.events) == (made.pk, "https://example.com/b", list(RESULT_EVENTS))
    assert changed.sealed_secret == made.sealed_secret

    assert set_project_webhook(project, None) is None
    assert not project.webhooks.exists()


# --- The one of CONVEX_URL ---------------------------------------------------------------------------------------


@pytest.fixture
def convex(db: None, receiver: Receiver, settings: Settings) -> Receiver:
    # It may be internal: the operator has set it.
    settings.WEBHOOK_ALLOW_HTTP, settings.WEBHOOK_ALLOWED_HOSTS = False, []
    settings.CONVEX_URL, settings.CONVEX_WEBHOOK_SECRET = receiver.url, SECRET
    return receiver


def of_settings() -> list[WebhookEndpoint]:
    return list(WebhookEndpoint.objects.filter(origin="setting"))


def test_convex_gets_every_build_s_result(convex: Receiver, move: Move, other: Any) -> None:
    follow_settings()
    move(*DONE), move(Status.RUNNING, Status.FAILED, by=other), move(Status.CANCELLED), move()

    send_due()

    types = [Webhook(SECRET).verify(message.body, message.headers)["type"] for message in convex.messages]
    assert sorted(types) == ["build.cancelled", "build.completed", "build.failed"]


def test_settings_update_the_endpoint_and_never_create_a_second(convex: Receiver, settings: Settings) -> None:
    for _ in range(3):
        follow_settings()
    [endpoint] = of_settings()
    before = endpoint.sealed_secret

    settings.CONVEX_URL = "https://convex.example.com/hook"
    follow_settings()
    [endpoint] = of_settings()
    assert (endpoint.url, endpoint.sealed_secret) == (settings.CONVEX_URL, before)

    settings.CONVEX_WEBHOOK_SECRET = "whsec_" + "REVG" * 8
    follow_settings()
    [endpoint] = of_settings()
    assert endpoints.keys_of(endpoint) == ["whsec_" + "REVG" * 8, SECRET]

    settings.CONVEX_URL = ""
    follow_settings()
    [endpoint] = of_settings()
    assert endpoint.disabled_reason == "setting"

    settings.CONVEX_URL = "https://convex.example.com/hook"
    follow_settings()
    [endpoint] = of_settings()
    assert endpoint.is_active


def test_an_endpoint_disabled_by_staff_stays_disabled(convex: Receiver) -> None:
    follow_settings()
    [endpoint] = of_settings()
    endpoints.change_endpoint(endpoint, active=False, reason=WebhookEndpoint.Reason.STAFF)

    follow_settings()

    assert of_settings()[0].disabled_reason == "staff"


def test_without_settings_there_is_no_endpoint(db: None, settings: Settings) -> None:
    settings.CONVEX_URL = ""

    follow_settings()

    assert of_settings() == []


@pytest.mark.parametrize(
    ("url", "secret", "warning"),
    [
        ("https://convex.example.com", "", "CONVEX_WEBHOOK_SECRET"),
        ("https://convex.example.com", "whsec_", "CONVEX_WEBHOOK_SECRET"),
        ("https://convex.example.com", "whsec_" + "A" * 9, "CONVEX_WEBHOOK_SECRET"),
        ("https://convex.example.com", "not base64!", "CONVEX_WEBHOOK_SECRET"),
        ("ftp://convex.example.com", SECRET, "CONVEX_URL"),
        ("https://user:password@convex.example.com", SECRET, "CONVEX_URL"),
        ("", "", ""),
        ("http://127.0.0.1:3210/x", SECRET, ""),
        ("https://convex.example.com", "c2VjcmV0IG9mIHNpeHRlZW4gYnl0ZXM=", ""),
    ],
)
def test_invalid_settings_are_reported_at_start(settings: Settings, url: str, secret: str, warning: str) -> None:
    settings.CONVEX_URL, settings.CONVEX_WEBHOOK_SECRET = url, secret

    found = convex_is_usable(None)

    assert [warning in message.msg for message in found] == ([True] if warning else [])
    assert all(secret not in f"{message.msg}{message.hint}" for message in found if len(secret) > 6)


def test_a_weak_secret_causes_a_warning_but_signs(settings: Settings) -> None:
    settings.CONVEX_URL, settings.CONVEX_WEBHOOK_SECRET = "https://convex.example.com", "changeme"

    [warning] = convex_is_usable(None)

    assert (warning.id, "changeme" in f"{warning.msg}{warning.hint}") == ("builds.W002", False)


@pytest.mark.django_db(transaction=True)
def test_processes_starting_together_create_one_endpoint(settings: Settings) -> None:
    settings.CONVEX_URL, settings.CONVEX_WEBHOOK_SECRET = "https://convex.example.com", SECRET
    start = threading.Barrier(4)

    def follow(_: int) -> None:
        start.wait()
        try:
            follow_settings()
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(follow, range(4)))

    assert len(of_settings()) == 1


# --- Database constraints ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "columns",
    [
        {"disabled_at": timezone.now()},
        {"disabled_reason": "gone"},
        {"previous_sealed_secret": "x"},
        {"previous_valid_until": timezone.now()},
        {"owner": None},
        {"origin": "staff"},
        {"origin": "setting"},
        {"origin": "project"},
        {"origin": "nobody"},
    ],
)
def test_the_database_refuses_an_inconsistent_endpoint(make_endpoint: MakeEndpoint, columns: dict[str, Any]) -> None:
    endpoint = make_endpoint()

    with pytest.raises(IntegrityError), transaction.atomic():
        WebhookEndpoint.objects.filter(pk=endpoint.pk).update(**columns)


def test_the_database_refuses_a_second_endpoint_of_the_settings_or_of_a_project(convex: Receiver, move: Move) -> None:
    follow_settings()
    project = move().project
    set_project_webhook(project, "https://example.com/")
    for row in WebhookEndpoint.objects.all():
        again = WebhookEndpoint(
            owner=row.owner, project=row.project, origin=row.origin, url=row.url, events=[], sealed_secret="x"
        )
        with pytest.raises(IntegrityError), transaction.atomic():
            again.save(force_insert=True)


def test_the_database_refuses_an_inconsistent_delivery(make_endpoint: MakeEndpoint) -> None:
    delivery = outbox.send_test(make_endpoint())
    now = timezone.now()

    for columns in (
        {"status": "delivered"},
        {"finished_at": now},
        {"status": "failed", "finished_at": now, "lease_expires_at": now + timedelta(seconds=1)},
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            type(delivery).objects.filter(pk=delivery.pk).update(**columns)
