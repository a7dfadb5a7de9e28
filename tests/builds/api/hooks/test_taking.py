"""Who may send messages, and what a claim and a heartbeat give."""

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
from tests.builds.api.hooks.messages import (
    DOORS,
    HIDDEN,
    QueueBuild,
    assert_untouched,
    everything,
    files_of,
    of,
    result,
)
from tests.builds.signing import ANOTHER_SECRET, SECRET, code, send, send_raw, signed

pytestmark = pytest.mark.once("postgresql")

# --- Who may -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
def test_a_message_that_nobody_signed_changes_nothing(
    taken: dict[str, Any], queue_build: QueueBuild, door: str
) -> None:
    queue_build(is_external=True)
    before, body = Build.objects.get(pk=taken["jobId"]), everything(taken, door)
    headers = signed(body)

    answers = [send_raw(door, body, {**headers, name: ""}) for name in headers]
    answers += [send_raw(door, body, {}), send_raw(door, body, {**headers, "webhook-id": "\xe4 b"})]

    assert {(answer.status_code, code(answer)) for answer in answers} == {(401, "unsigned_message")}
    assert {answer["WWW-Authenticate"] for answer in answers} == {'StandardWebhooks realm="chef"'}
    assert_untouched(before)
    assert Build.objects.filter(status="running").count() == 1


@pytest.mark.parametrize("door", DOORS)
def test_a_message_that_was_altered_or_signed_by_another_changes_nothing(
    taken: dict[str, Any], queue_build: QueueBuild, door: str
) -> None:
    queue_build(is_external=True)
    before, body = Build.objects.get(pk=taken["jobId"]), everything(taken, door)
    headers = signed(body)

    answers = [
        send_raw(door, body + b" ", headers),
        send_raw(door, body, {**headers, "webhook-id": "msg_other"}),
        send_raw(door, body, {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) - 1)}),
        send_raw(door, body, signed(body, secret=ANOTHER_SECRET)),
        send_raw(door, body, {**headers, "webhook-signature": headers["webhook-signature"].replace("v1,", "v2,")}),
        send_raw(door, body, {**headers, "webhook-signature": "v1"}),
        send_raw(door, body, {**headers, "webhook-signature": "v1,====="}),
        send_raw(door, b"\xff" + body, headers),
    ]

    assert [(answer.status_code, code(answer)) for answer in answers] == [(401, "invalid_signature")] * len(answers)
    assert_untouched(before)
    assert Build.objects.filter(status="running").count() == 1


@pytest.mark.parametrize("age", [301, 86_400, -310])
def test_an_old_message_and_one_of_the_future_change_nothing(taken: dict[str, Any], age: float) -> None:
    before = Build.objects.get(pk=taken["jobId"])

    answer = send("result", result(taken), age=age)
    no_time = send_raw("result", b"{}", {**signed(b"{}"), "webhook-timestamp": "yesterday"})

    assert (answer.status_code, code(answer)) == (401, "message_too_old")
    assert (no_time.status_code, code(no_time)) == (401, "message_too_old")
    assert_untouched(before)


@pytest.mark.parametrize("age", [280, -280])
def test_clocks_may_differ_by_minutes(taken: dict[str, Any], age: float) -> None:
    assert send("heartbeat", of(taken), age=age).status_code == 200


def test_a_secret_can_be_replaced_by_the_next(taken: dict[str, Any], settings: Settings) -> None:
    settings.WORKER_SECRETS = [ANOTHER_SECRET, SECRET]

    assert send("heartbeat", of(taken), secret=SECRET).status_code == 200
    assert send("heartbeat", of(taken), secret=ANOTHER_SECRET).status_code == 200


@pytest.mark.parametrize("door", DOORS)
def test_without_a_secret_the_doors_are_closed(taken: dict[str, Any], settings: Settings, door: str) -> None:
    before = Build.objects.get(pk=taken["jobId"])
    settings.WORKER_SECRETS = []

    answer = send_raw(door, body := everything(taken, door), signed(body))

    assert (answer.status_code, code(answer)) == (403, "no_outside_builder")
    assert "CHEF_WORKER_SECRET" in answer.json()["errors"][0]["detail"]
    assert_untouched(before)


def test_a_token_is_no_signature(taken: dict[str, Any], client: APIClient) -> None:
    answer = client.post("/v1/hooks/worker-result", result(taken))

    assert (answer.status_code, code(answer)) == (401, "unsigned_message")


@pytest.mark.redis
def test_only_what_is_not_signed_spends_the_address_s_rate(
    taken: dict[str, Any], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.INSTALLATION, settings.RATE_ANONYMOUS = f"test-{uuid.uuid4()}", "3/minute"

    good = [send("heartbeat", of(taken)).status_code for _ in range(5)]
    bad = [send_raw("heartbeat", b"{}", {}).status_code for _ in range(5)]

    assert good == [200] * 5
    assert bad == [401] * 3 + [429] * 2
    assert send("heartbeat", of(taken)).status_code == 200


GOOD_KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize(
    "value",
    ["secret", GOOD_KEY, "whsec_", "whsec_short", "whsec_" + GOOD_KEY[:-4] + "!!!!", f"whsec_{GOOD_KEY},x", "whsec_é"],
)
def test_a_secret_of_the_wrong_form_stops_the_process_with_what_to_write(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("CHEF_WORKER_SECRET", value)

    with pytest.raises(ImproperlyConfigured, match=r"openssl rand -base64 32") as caught:
        chef_settings.worker_secrets()

    assert GOOD_KEY[:8] not in str(caught.value)  # what may be a secret is not told to a log


def test_secrets_are_read_with_commas_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHEF_WORKER_SECRET", f" whsec_{GOOD_KEY} , {SECRET}")

    assert chef_settings.worker_secrets() == [f"whsec_{GOOD_KEY}", SECRET]


# --- Taking and keeping ------------------------------------------------------------------------------------------


def test_a_claim_tells_all_that_a_builder_needs(queue_build: QueueBuild, client: APIClient) -> None:
    strategy = {"runtime": "static", "buildCommand": "make all"}
    secrets = {"API_KEY": Secret(HIDDEN)}
    build = queue_build(is_external=True, strategy=strategy, env={"MODE": "production"}, secrets=secrets)

    answer = send("claim", {"worker": "ann's machine"})

    taken = answer.json()
    assert (answer.status_code, taken["jobId"], taken["fence"]) == (200, str(build.pk), 1)
    assert (taken["projectId"], taken["revision"], taken["env"]) == (str(build.project_id), 1, {"MODE": "production"})
    assert (taken["strategy"]["runtime"], taken["strategy"]["buildCommand"]) == ("static", "make all")
    assert HIDDEN not in answer.content.decode()
    assert files_of(APIClient().get(taken["archive"]["url"])) == {"index.html": b"<h1>hi</h1>"}
    shown = client.get(f"/v1/builds/{build.pk}").json()
    assert (shown["status"], shown["strategy"], shown["external"]) == ("running", taken["strategy"], True)
    build.refresh_from_db()
    assert (build.worker, build.runtime, build.attempts.get().worker) == ("ann's machine", "static", "ann's machine")


def test_a_project_that_nobody_here_could_build_is_taken_all_the_same(queue_build: QueueBuild) -> None:
    queue_build(is_external=True, files=[NewFile("Cargo.toml", b"")])

    assert send("claim", {}).json()["strategy"] is None


def test_where_nothing_waits_outside_a_claim_is_answered_with_nothing(queue_build: QueueBuild) -> None:
    queue_build()

    answer = send("claim", {})

    assert (answer.status_code, answer.content) == (204, b"")
    assert Build.objects.get().status == "queued"


def test_a_claim_that_was_answered_with_nothing_is_no_claim_when_it_is_played_again(queue_build: QueueBuild) -> None:
    headers = signed(b"{}")
    assert send_raw("claim", b"{}", headers).status_code == 204
    queue_build(is_external=True)

    assert send_raw("claim", b"{}", headers).status_code == 204
    assert Build.objects.get().status == "queued"


def test_a_build_whose_variables_cannot_be_read_fails_as_it_does_here(queue_build: QueueBuild) -> None:
    build = queue_build(is_external=True, secrets={"API_KEY": Secret(HIDDEN)})
    EnvironmentVariable.objects.update(sealed_value="sealed by nobody")

    assert send("claim", {}).status_code == 204
    build.refresh_from_db()
    assert build.verdict
    assert (build.status, build.verdict["code"]) == ("failed", "environment_unreadable")


def test_a_heartbeat_keeps_a_build(taken: dict[str, Any], settings: Settings) -> None:
    Build.objects.update(lease_expires_at=timezone.now() + timedelta(seconds=1))

    answer = send("heartbeat", of(taken))

    build = Build.objects.get()
    assert build.lease_expires_at
    assert build.lease_expires_at > timezone.now() + timedelta(seconds=settings.OUTSIDE_LEASE_SECONDS - 30)
    document = answer.json()
    assert document.pop("leaseExpiresAt")
    assert (answer.status_code, document) == (200, of(taken))


def test_a_link_serves_its_holder_while_the_build_is_his(
    taken: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, stranger = taken["archive"]["url"], APIClient()
    assert stranger.get(url).status_code == 200

    altered = stranger.get(url[:-1] + ("a" if url[-1] != "a" else "b"))
    with monkeypatch.context() as later:
        now = time.time()
        later.setattr(time, "time", lambda: now + 601)
        expired = stranger.get(url)
    assert send("result", result(taken)).status_code == 200
    ended = stranger.get(url)

    assert [(answer.status_code, code(answer)) for answer in (altered, expired, ended)] == [(403, "invalid_link")] * 3
