"""Who may send messages, and what a claim and a heartbeat return."""

import base64
import time
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from builds.models import Build
from chef import settings as chef_settings
from projects.environment import Secret
from projects.files.paths import NewFile
from projects.models import EnvironmentVariable
from tests.builds.api.external.messages import (
    HIDDEN,
    HOOKS,
    QueueBuild,
    assert_untouched,
    body_for,
    files_of,
    message_for,
    result,
)
from tests.builds.signing import ANOTHER_SECRET, SECRET, code, send, send_raw, signed

pytestmark = pytest.mark.once("postgresql")

# --- Authentication --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", HOOKS)
def test_an_unsigned_message_changes_nothing(claimed: dict[str, Any], queue_build: QueueBuild, hook: str) -> None:
    queue_build(is_external=True)
    before, body = Build.objects.get(pk=claimed["jobId"]), body_for(claimed, hook)
    headers = signed(body)

    answers = [send_raw(hook, body, {**headers, name: ""}) for name in headers]
    answers += [send_raw(hook, body, {}), send_raw(hook, body, {**headers, "webhook-id": "\xe4 b"})]

    assert {(answer.status_code, code(answer)) for answer in answers} == {(401, "unsigned_message")}
    assert {answer["WWW-Authenticate"] for answer in answers} == {'StandardWebhooks realm="chef"'}
    assert_untouched(before)
    assert Build.objects.filter(status="running").count() == 1


@pytest.mark.parametrize("hook", HOOKS)
def test_an_altered_or_wrongly_signed_message_changes_nothing(
    claimed: dict[str, Any], queue_build: QueueBuild, hook: str
) -> None:
    queue_build(is_external=True)
    before, body = Build.objects.get(pk=claimed["jobId"]), body_for(claimed, hook)
    headers = signed(body)

    answers = [
        send_raw(hook, body + b" ", headers),
        send_raw(hook, body, {**headers, "webhook-id": "msg_other"}),
        send_raw(hook, body, {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) - 1)}),
        send_raw(hook, body, signed(body, secret=ANOTHER_SECRET)),
        send_raw(hook, body, {**headers, "webhook-signature": headers["webhook-signature"].replace("v1,", "v2,")}),
        send_raw(hook, body, {**headers, "webhook-signature": "v1"}),
        send_raw(hook, body, {**headers, "webhook-signature": "v1,====="}),
        send_raw(hook, b"\xff" + body, headers),
    ]

    assert [(answer.status_code, code(answer)) for answer in answers] == [(401, "invalid_signature")] * len(answers)
    assert_untouched(before)
    assert Build.objects.filter(status="running").count() == 1


@pytest.mark.parametrize("age", [301, 86_400, -310])
def test_messages_from_the_past_or_future_change_nothing(claimed: dict[str, Any], age: float) -> None:
    before = Build.objects.get(pk=claimed["jobId"])

    answer = send("result", result(claimed), age=age)
    no_time = send_raw("result", b"{}", {**signed(b"{}"), "webhook-timestamp": "yesterday"})

    assert (answer.status_code, code(answer)) == (401, "message_too_old")
    assert (no_time.status_code, code(no_time)) == (401, "message_too_old")
    assert_untouched(before)


@pytest.mark.parametrize("age", [280, -280])
def test_a_clock_skew_of_minutes_is_accepted(claimed: dict[str, Any], age: float) -> None:
    assert send("heartbeat", message_for(claimed), age=age).status_code == 200


def test_old_and_new_secrets_are_accepted_during_rotation(claimed: dict[str, Any], settings: Settings) -> None:
    settings.WORKER_SECRETS = [ANOTHER_SECRET, SECRET]

    assert send("heartbeat", message_for(claimed), secret=SECRET).status_code == 200
    assert send("heartbeat", message_for(claimed), secret=ANOTHER_SECRET).status_code == 200


@pytest.mark.parametrize("hook", HOOKS)
def test_without_a_secret_all_messages_are_refused(claimed: dict[str, Any], settings: Settings, hook: str) -> None:
    before = Build.objects.get(pk=claimed["jobId"])
    settings.WORKER_SECRETS = []

    answer = send_raw(hook, body := body_for(claimed, hook), signed(body))

    assert (answer.status_code, code(answer)) == (403, "no_outside_builder")
    assert "CHEF_WORKER_SECRET" in answer.json()["errors"][0]["detail"]
    assert_untouched(before)


def test_an_api_token_does_not_replace_a_signature(claimed: dict[str, Any], client: APIClient) -> None:
    answer = client.post("/v1/hooks/worker-result", result(claimed))

    assert (answer.status_code, code(answer)) == (401, "unsigned_message")


@pytest.mark.redis
def test_only_unsigned_messages_count_towards_the_address_s_rate_limit(
    claimed: dict[str, Any], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.INSTALLATION, settings.RATE_ANONYMOUS = f"test-{uuid.uuid4()}", "3/minute"

    good = [send("heartbeat", message_for(claimed)).status_code for _ in range(5)]
    bad = [send_raw("heartbeat", b"{}", {}).status_code for _ in range(5)]

    assert good == [200] * 5
    assert bad == [401] * 3 + [429] * 2
    assert send("heartbeat", message_for(claimed)).status_code == 200


GOOD_KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize(
    "value",
    ["secret", GOOD_KEY, "whsec_", "whsec_short", "whsec_" + GOOD_KEY[:-4] + "!!!!", f"whsec_{GOOD_KEY},x", "whsec_é"],
)
def test_a_malformed_secret_stops_the_start_and_explains_the_form(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CHEF_WORKER_SECRET", value)

    with pytest.raises(ImproperlyConfigured, match=r"openssl rand -base64 32") as caught:
        chef_settings.worker_secrets()

    assert GOOD_KEY[:8] not in str(caught.value)  # the value may be a secret: keep it out of logs


def test_secrets_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHEF_WORKER_SECRET", f" whsec_{GOOD_KEY} , {SECRET}")

    assert chef_settings.worker_secrets() == [f"whsec_{GOOD_KEY}", SECRET]


# --- Claims and heartbeats -------------------------------------------------------------------------------------------


def test_a_claim_returns_everything_that_a_builder_needs(queue_build: QueueBuild, client: APIClient) -> None:
    strategy = {"runtime": "static", "buildCommand": "make all"}
    secrets = {"API_KEY": Secret(HIDDEN)}
    build = queue_build(is_external=True, strategy=strategy, env={"MODE": "production"}, secrets=secrets)

    answer = send("claim", {"worker": "ann's machine"})

    claimed = answer.json()
    assert (answer.status_code, claimed["jobId"], claimed["fence"]) == (200, str(build.pk), 1)
    assert (claimed["projectId"], claimed["revision"], claimed["env"]) == (
        str(build.project_id),
        1,
        {"MODE": "production"},
    )
    assert (claimed["strategy"]["runtime"], claimed["strategy"]["buildCommand"]) == ("static", "make all")
    assert HIDDEN not in answer.content.decode()
    assert files_of(APIClient().get(claimed["archive"]["url"])) == {"index.html": b"<h1>hi</h1>"}
    shown = client.get(f"/v1/builds/{build.pk}").json()
    assert (shown["status"], shown["strategy"], shown["external"]) == ("running", claimed["strategy"], True)
    build.refresh_from_db()
    assert (build.worker, build.runtime, build.attempts.get().worker) == ("ann's machine", "static", "ann's machine")


def test_a_project_with_an_unknown_runtime_can_be_claimed(queue_build: QueueBuild) -> None:
    queue_build(is_external=True, files=[NewFile("Cargo.toml", b"")])

    assert send("claim", {}).json()["strategy"] is None


def test_a_claim_on_an_empty_external_queue_returns_no_content(queue_build: QueueBuild) -> None:
    queue_build()

    answer = send("claim", {})

    assert (answer.status_code, answer.content) == (204, b"")
    assert Build.objects.get().status == "queued"


def test_a_replayed_empty_claim_claims_nothing(queue_build: QueueBuild) -> None:
    headers = signed(b"{}")
    assert send_raw("claim", b"{}", headers).status_code == 204
    queue_build(is_external=True)

    assert send_raw("claim", b"{}", headers).status_code == 204
    assert Build.objects.get().status == "queued"


def test_a_claimed_build_with_unreadable_variables_fails(queue_build: QueueBuild) -> None:
    build = queue_build(is_external=True, secrets={"API_KEY": Secret(HIDDEN)})
    EnvironmentVariable.objects.update(sealed_value="sealed by nobody")

    assert send("claim", {}).status_code == 204
    build.refresh_from_db()
    assert build.verdict
    assert (build.status, build.verdict["code"]) == ("failed", "environment_unreadable")


def test_a_heartbeat_extends_the_lease(claimed: dict[str, Any], settings: Settings) -> None:
    Build.objects.update(lease_expires_at=timezone.now() + timedelta(seconds=1))

    answer = send("heartbeat", message_for(claimed))

    build = Build.objects.get()
    assert build.lease_expires_at
    assert build.lease_expires_at > timezone.now() + timedelta(seconds=settings.OUTSIDE_LEASE_SECONDS - 30)
    document = answer.json()
    assert document.pop("leaseExpiresAt")
    assert (answer.status_code, document) == (200, message_for(claimed))


def test_an_archive_link_works_until_it_expires_or_the_build_ends(
    claimed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, stranger = claimed["archive"]["url"], APIClient()
    assert stranger.get(url).status_code == 200

    altered = stranger.get(url[:-1] + ("a" if url[-1] != "a" else "b"))
    with monkeypatch.context() as later:
        now = time.time()
        later.setattr(time, "time", lambda: now + 601)
        expired = stranger.get(url)
    assert send("result", result(claimed)).status_code == 200
    ended = stranger.get(url)

    assert [(answer.status_code, code(answer)) for answer in (altered, expired, ended)] == [(403, "invalid_link")] * 3
