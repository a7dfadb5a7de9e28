"""Webhooks in the admin: the installation's endpoints, replays, and no secrets."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client

from builds.models import Build, Delivery, WebhookEndpoint
from builds.webhooks import endpoints, guard
from tests.builds.webhooks.sending import BAD, GOOD, send_due

pytestmark = pytest.mark.once("postgresql")

MakeEndpoint = Callable[..., WebhookEndpoint]
Move = Callable[..., Build]
LIST, DELIVERIES = "/admin/builds/webhookendpoint/", "/admin/builds/delivery/"


@pytest.fixture
def staff(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr(guard, "system_resolver", lambda host, port: ["10.0.0.1"] if "inside" in host else [])
    return admin_client


def act(staff: Client, page: str, action: str, *pks: Any) -> str:
    """Choose the action in the list, and confirm it on the next page."""
    answer = staff.post(page, {"action": action, "_selected_action": [str(pk) for pk in pks]}, follow=True)
    assert answer.status_code == 200
    if answer.redirect_chain and "/operate/" in answer.redirect_chain[-1][0]:
        answer = staff.post(answer.redirect_chain[-1][0], {"id": [str(pk) for pk in pks]}, follow=True)
        assert answer.status_code == 200
    return str(answer.content.decode())


def test_staff_create_an_endpoint_for_all_builds_and_see_its_secret_once(
    staff: Client, move: Move, other: User
) -> None:
    body = {"url": "https://example.com/all", "events": ["build.queued"]}

    shown = staff.post(f"{LIST}add/", body, follow=True).content.decode()

    endpoint = WebhookEndpoint.objects.get()
    [secret] = endpoints.keys_of(endpoint)
    assert secret in shown.replace("&#x2B;", "+").replace("&#x3D;", "=")
    assert (endpoint.origin, endpoint.owner) == ("staff", None)
    move(by=other), move()
    assert len(send_due(GOOD)) == 2
    for page in (LIST, f"{LIST}{endpoint.pk}/change/", DELIVERIES):
        again = staff.get(page).content.decode()
        assert secret not in again
        assert endpoint.sealed_secret not in again


@pytest.mark.parametrize("url", ["http://example.com/", "https://127.0.0.1/", "https://inside.example.com/", "x"])
def test_internal_addresses_are_refused_for_staff_too(staff: Client, url: str) -> None:
    answer = staff.post(f"{LIST}add/", {"url": url, "events": ["build.queued"]})

    assert b"errorlist" in answer.content
    assert not WebhookEndpoint.objects.exists()


def test_an_installation_s_endpoint_is_changed_and_a_user_s_is_not(staff: Client, make_endpoint: MakeEndpoint) -> None:
    ours, _ = endpoints.create_for_installation(url="https://example.com/a", events=["build.queued"])
    theirs = make_endpoint("https://example.com/theirs")

    for endpoint in (ours, theirs):
        body = {"url": "https://example.com/b", "events": ["build.failed"]}
        assert staff.post(f"{LIST}{endpoint.pk}/change/", body, follow=True).status_code == 200

    ours.refresh_from_db()
    theirs.refresh_from_db()
    assert (ours.url, ours.events) == ("https://example.com/b", ["build.failed"])
    assert theirs.url == "https://example.com/theirs"


def test_endpoints_are_switched_off_and_on_and_tested(staff: Client, make_endpoint: MakeEndpoint) -> None:
    endpoint = make_endpoint()

    act(staff, LIST, "send_test", endpoint.pk)
    act(staff, LIST, "switch_off", endpoint.pk)
    endpoint.refresh_from_db()
    assert endpoint.disabled_reason == "staff"
    act(staff, LIST, "send_test", endpoint.pk)
    assert [delivery.status for delivery in Delivery.objects.all()] == ["failed"]

    act(staff, LIST, "switch_on", endpoint.pk)
    act(staff, LIST, "replay_failed", endpoint.pk)
    endpoint.refresh_from_db()
    assert endpoint.is_active
    assert Delivery.objects.get().status == "pending"


def test_deliveries_are_shown_with_every_try_and_can_be_replayed(
    staff: Client, make_endpoint: MakeEndpoint, move: Move
) -> None:
    endpoint = make_endpoint()
    move()
    send_due(BAD)
    [delivery] = Delivery.objects.all()

    shown = staff.get(f"{DELIVERIES}{delivery.pk}/change/").content.decode()
    assert "not today" in shown
    assert "build.queued" in shown
    listed = staff.get(f"{DELIVERIES}?endpoint__id__exact={endpoint.pk}&status=pending").content.decode()
    assert str(delivery.pk) in listed
    assert "It is sent once more" in act(staff, DELIVERIES, "replay", delivery.pk)
    assert [sent.id for sent in send_due(GOOD)] == [delivery.pk]

    act(staff, DELIVERIES, "switch_endpoints_off", delivery.pk)
    endpoint.refresh_from_db()
    assert endpoint.disabled_reason == "staff"
    assert "Its endpoint is switched off." in act(staff, DELIVERIES, "replay", delivery.pk)
    messages = [
        entry.get_change_message() for entry in LogEntry.objects.filter(object_id=str(delivery.pk)).order_by("pk")
    ]
    assert messages == ["It is sent once more.", "Switched off: it is sent nothing more."]


def test_only_an_installation_s_secret_can_be_rotated(staff: Client, make_endpoint: MakeEndpoint) -> None:
    ours, old = endpoints.create_for_installation(url="https://example.com/a", events=["build.queued"])
    theirs = make_endpoint()

    shown = act(staff, LIST, "rotate", ours.pk, theirs.pk)

    ours.refresh_from_db()
    theirs.refresh_from_db()
    new, before = endpoints.keys_of(ours)
    assert before == old
    assert new in shown.replace("&#x2B;", "+").replace("&#x3D;", "=")
    assert len(re.findall("whsec_", shown)) == 1
    assert [entry.get_change_message() for entry in LogEntry.objects.all()] == ["Rotated the secret."]
    assert len(endpoints.keys_of(theirs)) == 1


def test_viewers_cannot_send(staff: Client, make_endpoint: MakeEndpoint, move: Move) -> None:
    looker = User.objects.create_user("looker", is_staff=True)
    looker.user_permissions.set(Permission.objects.filter(codename__in=["view_delivery", "view_webhookendpoint"]))
    endpoint = make_endpoint()
    move()
    send_due(GOOD)
    staff.force_login(looker)

    act(staff, DELIVERIES, "replay", Delivery.objects.get().pk)
    act(staff, LIST, "switch_off", endpoint.pk)

    endpoint.refresh_from_db()
    assert endpoint.is_active
    assert Delivery.objects.get().status == "delivered"
