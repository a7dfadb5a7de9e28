"""Doors for builders outside: who may, what a claim gives, what a result changes, and what a refusal leaves behind."""

import base64
import io
import json
import tarfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from builds import actions, artifacts
from builds.models import Artifact, Build, BuildEvent, LogChunk
from builds.queue import claim
from builds.reaper import reap_abandoned
from chef import settings as chef_settings
from projects import idempotency
from projects.actions import NewFile
from projects.environment import Secret
from projects.models import EnvironmentVariable, IdempotencyKey
from tests.answers import body_of
from tests.builds.signing import ANOTHER_SECRET, SECRET, code, send, send_raw, signed

QueueBuild = Callable[..., Build]
HIDDEN = "correct-horse-battery"


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


def of(taken: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"jobId": taken["jobId"], "fence": taken["fence"], **more}


def result(taken: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A report of success with a file and a line."""
    files = [{"name": "dist/app.js", "content": "run()"}]
    return of(taken, **{"status": "completed", "logs": "built\n", "artifacts": files, **more})


def stored(job_id: str, fence: int = 1) -> list[str]:
    with suppress(FileNotFoundError):
        return sorted(default_storage.listdir(f"{job_id}/{fence}")[1])
    return []


def assert_untouched(before: Build) -> None:
    """As it was when it was read, and nothing of a report is left."""
    build = Build.objects.get(pk=before.pk)
    state = ("status", "fence", "lease_expires_at", "verdict", "log_bytes", "usage", "progress", "phase")
    assert {name: getattr(build, name) for name in state} == {name: getattr(before, name) for name in state}
    assert not LogChunk.objects.filter(build=build).exists()
    assert not Artifact.objects.filter(build=build).exists()
    assert stored(str(build.pk), build.fence) == []


# --- Who may -----------------------------------------------------------------------------------------------------

DOORS = ["claim", "heartbeat", "result"]


def everything(taken: dict[str, Any], door: str) -> bytes:
    return json.dumps({"claim": {}, "heartbeat": of(taken), "result": result(taken)}[door]).encode()


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


def files_of(answer: Any) -> dict[str, bytes]:
    assert answer.status_code == 200, answer.content
    with tarfile.open(fileobj=io.BytesIO(body_of(answer))) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


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


# --- Results -----------------------------------------------------------------------------------------------------


def test_a_result_ends_a_build_with_its_log_and_its_artifacts(taken: dict[str, Any], client: APIClient) -> None:
    binary = bytes(range(256))
    files = [
        {"name": "dist/app.js", "content": "rün()"},
        {"name": "dist/logo.png", "content": base64.b64encode(binary).decode(), "encoding": "base64"},
    ]
    logs = [
        {"text": "compiling\n", "stream": "stderr"},
        {"text": "added 3 packages\n", "phase": "installation"},
        {"text": "\x1b[31mdone\x1b[0m\x1b[2J\0\n"},
    ]

    answer = send("result", result(taken, artifacts=files, logs=logs))

    assert (answer.status_code, answer.json()) == (200, of(taken, status="completed"))
    shown = client.get(f"/v1/builds/{taken['jobId']}").json()
    assert (shown["status"], shown["progress"], shown["verdict"]) == ("completed", 100, None)
    assert shown["usage"]["diskBytes"] == len("rün()".encode()) + 256
    assert shown["usage"]["logBytes"] > 0
    place = f"/v1/projects/{taken['projectId']}"
    listed = client.get(f"{place}/artifacts").json()["artifacts"]
    assert [(row["name"], row["contentType"]) for row in listed] == [
        ("dist/app.js", "text/javascript"),
        ("dist/logo.png", "image/png"),
    ]
    assert [body_of(client.get(row["url"])) for row in listed] == ["rün()".encode(), binary]
    entries = client.get(f"{place}/logs").json()["entries"]
    assert [(entry["phase"], entry["stream"], entry["text"]) for entry in entries] == [
        ("installation", "stdout", "added 3 packages\n"),
        ("build", "stderr", "compiling\n"),
        ("build", "stdout", "\x1b[31mdone\x1b[0m\n"),
    ]
    build = Build.objects.get()
    assert build.attempts.get().outcome == "completed"
    assert BuildEvent.objects.filter(build=build, to_status="completed").count() == 1


def test_a_failure_has_the_verdict_that_was_told(taken: dict[str, Any], client: APIClient) -> None:
    told = {"code": "type_error", "message": "Types.", "evidence": ["a.ts: no\x1b[2J"], "exitCode": 2, "phase": "build"}

    answer = send("result", of(taken, status="failed", verdict=told, logs="a.ts: no\n"))

    assert answer.json() == of(taken, status="failed")
    verdict = client.get(f"/v1/builds/{taken['jobId']}").json()["verdict"]
    hint = verdict.pop("hint")
    assert hint == "Correct the types that the evidence names."
    assert verdict == {
        "class": "build",
        "code": "type_error",
        "phase": "build",
        "message": "Types.",
        "evidence": ["a.ts: no"],
        "retryable": False,
        "exitCode": 2,
    }


def test_a_failure_without_a_verdict_is_the_build_s(taken: dict[str, Any]) -> None:
    assert send("result", of(taken, status="failed")).status_code == 200

    build = Build.objects.get()
    assert build.verdict
    assert (build.verdict["code"], build.verdict_class) == ("build_failed", "build")


def test_a_fault_of_the_builder_s_puts_the_build_back_until_its_attempts_are_spent(
    taken: dict[str, Any], settings: Settings
) -> None:
    settings.MAX_ATTEMPTS = 2
    told = {"code": "internal_error", "evidence": ["no disk"]}

    first = send("result", of(taken, status="failed", verdict=told))
    assert first.json() == of(taken, status="queued")
    Build.objects.update(available_at=timezone.now())
    again = send("claim", {}).json()
    last = send("result", of(again, status="failed", verdict=told))

    assert last.json() == of(again, status="failed")
    build = Build.objects.get()
    assert build.verdict
    assert (build.verdict["code"], build.verdict["evidence"]) == ("attempts_exhausted", ["internal_error: no disk"])
    assert [attempt.outcome for attempt in build.attempts.all()] == ["internal_error", "internal_error"]


def test_a_project_s_secrets_are_masked_in_all_that_is_told(queue_build: QueueBuild) -> None:
    queue_build(is_external=True, secrets={"API_KEY": Secret(HIDDEN)})
    taken = send("claim", {}).json()
    told = {"message": f"no {HIDDEN}", "hint": f"not {HIDDEN}", "evidence": [f"key={HIDDEN}"]}
    pieces = [{"text": HIDDEN[:9]}, {"text": HIDDEN[9:] + "\n"}, {"text": base64.b64encode(HIDDEN.encode()).decode()}]

    assert send("result", of(taken, status="failed", verdict=told, logs=pieces)).status_code == 200

    build = Build.objects.get()
    log = "".join(LogChunk.objects.filter(build=build).values_list("text", flat=True))
    assert log.count("[secret API_KEY]") == 2
    assert HIDDEN not in log + json.dumps(build.verdict)
    assert json.dumps(build.verdict).count("[secret API_KEY]") == 3


def test_what_cannot_be_masked_is_left_out_and_said(queue_build: QueueBuild) -> None:
    queue_build(is_external=True, secrets={"API_KEY": Secret(HIDDEN)})
    taken = send("claim", {}).json()
    EnvironmentVariable.objects.update(sealed_value="sealed by nobody")
    told = {"code": "type_error", "message": HIDDEN, "evidence": [HIDDEN]}

    assert send("result", of(taken, status="failed", verdict=told, logs=HIDDEN)).status_code == 200

    build = Build.objects.get()
    log = "".join(LogChunk.objects.filter(build=build).values_list("text", flat=True))
    assert "API_KEY cannot be read" in log
    assert build.verdict
    assert build.verdict["code"] == "type_error"
    assert HIDDEN not in log + json.dumps(build.verdict)


def test_a_log_is_capped_with_a_mark(taken: dict[str, Any], settings: Settings) -> None:
    settings.MAX_LOG_BYTES = 2 * 600_000
    lines = "".join(f"{number:07} {'x' * 92}\n" for number in range(20_000))

    assert send("result", result(taken, logs=lines)).status_code == 200

    build = Build.objects.get()
    log = "".join(LogChunk.objects.filter(build=build).values_list("text", flat=True))
    assert log.startswith("0000000 ")
    assert log.endswith("x\n")
    assert "0019999" in log
    assert "bytes of output were left out here" in log
    assert build.log_truncated
    assert build.log_bytes <= 600_000


# --- Refused: nothing changed ------------------------------------------------------------------------------------


def refused(taken: dict[str, Any], *, fence: int | None = None) -> tuple[int, str]:
    before = Build.objects.get(pk=taken["jobId"])
    document = result(taken) | ({"fence": fence} if fence else {})
    found = set()
    for door, message in (("result", document), ("heartbeat", {name: document[name] for name in ("jobId", "fence")})):
        answer = send(door, message)
        found.add((answer.status_code, code(answer)))
    assert_untouched(before)
    [refusal] = found
    return refusal


def test_a_stale_fence(taken: dict[str, Any]) -> None:
    Build.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    reap_abandoned()
    assert refused(taken) == (409, "stale_fence")  # it waits again

    Build.objects.update(available_at=timezone.now())
    again = send("claim", {}).json()

    assert again["fence"] == 2
    assert refused(taken) == (409, "stale_fence")
    assert refused(again, fence=3) == (409, "stale_fence")
    assert send("result", result(again)).status_code == 200


def test_a_result_that_comes_after_its_lease(taken: dict[str, Any]) -> None:
    Build.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))

    assert refused(taken) == (409, "lease_expired")


def test_a_build_that_was_cancelled(taken: dict[str, Any], owner: User) -> None:
    actions.cancel_build(Build.objects.get(), by=owner)

    assert refused(taken) == (409, "build_ended")


def test_a_build_that_runs_here(queue_build: QueueBuild) -> None:
    build = queue_build()
    assert claim("worker")

    assert refused({"jobId": str(build.pk), "fence": 1}) == (409, "not_external")


def test_a_build_that_is_not_there(db: None) -> None:
    nobody = {"jobId": str(uuid.uuid4()), "fence": 1}

    answers = [send("result", result(nobody)), send("heartbeat", nobody)]

    assert [(answer.status_code, code(answer)) for answer in answers] == [(404, "not_found")] * 2
    assert not IdempotencyKey.objects.exists()


@pytest.mark.parametrize(
    ("change", "attr", "codes"),
    [
        ({"status": "cancelled"}, "status", {"invalid_choice"}),
        ({"fence": 0}, "fence", {"min_value"}),
        ({"jobId": 7}, "jobId", {"invalid"}),
        ({"image": "evil"}, "image", {"unknown_field"}),
        ({"verdict": {}}, "verdict", {"other_status"}),
        ({"status": "failed"}, "artifacts", {"other_status"}),
        ({"status": "failed", "verdict": {"code": "cancelled"}}, "verdict.code", {"invalid_choice"}),
        ({"status": "failed", "verdict": {"code": "whatever"}}, "verdict.code", {"invalid_choice"}),
        ({"status": "failed", "verdict": {"message": "x" * 401}}, "verdict.message", {"max_length"}),
        ({"status": "failed", "verdict": {"evidence": ["x"] * 11}}, "verdict.evidence", {"max_length"}),
        ({"logs": 7}, "logs", {"shape"}),
        ({"logs": [{"text": "x", "phase": "cleanup"}]}, "logs", {"shape"}),
        ({"logs": [{"text": "x", "phase": ["build"]}]}, "logs", {"shape"}),
        ({"logs": [{"text": "x", "at": "now"}]}, "logs", {"shape"}),
        ({"artifacts": {}}, "artifacts", {"shape"}),
        ({"artifacts": ["x"]}, "artifacts.0", {"invalid_artifact"}),
        ({"artifacts": [{"name": "a", "content": "x", "size": 1}]}, "artifacts.a", {"invalid_artifact"}),
        ({"artifacts": [{"name": "a"}]}, "artifacts.a", {"invalid_artifact"}),
        ({"artifacts": [{"name": "a", "content": "?", "encoding": "base64"}]}, "artifacts.a", {"invalid_artifact"}),
        ({"artifacts": [{"name": "a", "content": "?", "encoding": []}]}, "artifacts.a", {"invalid_artifact"}),
        ({"artifacts": [{"name": "a", "content": "x"}] * 2}, "artifacts.a", {"duplicate_path"}),
    ],
)
def test_a_result_that_says_nothing_or_too_much(
    taken: dict[str, Any], change: dict[str, Any], attr: str, codes: set[str]
) -> None:
    before = Build.objects.get()

    answer = send("result", result(taken) | change)

    assert answer.status_code == 400
    errors = answer.json()["errors"]
    assert {error["attr"] for error in errors} == {attr}
    assert {error["code"] for error in errors} == codes
    assert_untouched(before)


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a/../b", "./a", "a//b", "a/", "", "a\\b", "a\nb", "a\0b", "a\u202eb", "x" * 1025],
)
def test_names_of_artifacts_are_paths_that_a_build_here_could_have(taken: dict[str, Any], name: str) -> None:
    before = Build.objects.get()
    files = [{"name": "fine", "content": "x"}, {"name": name, "content": "x"}]

    answer = send("result", result(taken, artifacts=files))

    assert (answer.status_code, code(answer)) == (400, "invalid_artifact")
    assert_untouched(before)


def test_a_file_that_is_a_folder_too(taken: dict[str, Any]) -> None:
    files = [{"name": "a", "content": "x"}, {"name": "a/b", "content": "x"}]

    assert code(send("result", result(taken, artifacts=files))) == "duplicate_path"


def test_artifacts_keep_to_the_limits_of_the_installation(taken: dict[str, Any], settings: Settings) -> None:
    before = Build.objects.get()
    files = [{"name": f"{number}", "content": "12345"} for number in range(3)]

    settings.MAX_ARTIFACTS = 2
    many = send("result", result(taken, artifacts=files))
    settings.MAX_ARTIFACTS, settings.MAX_ARTIFACT_BYTES = 3, 14
    large = send("result", result(taken, artifacts=files))
    assert_untouched(before)
    settings.MAX_ARTIFACT_BYTES = 15

    assert (code(many), code(large)) == ("too_many", "artifacts_too_large")
    assert send("result", result(taken, artifacts=files)).status_code == 200


def test_what_is_no_json_object_is_refused(db: None) -> None:
    for body, status in ((b"{", 400), (b"[]", 400), (b"null", 400)):
        assert send_raw("claim", body, signed(body)).status_code == status
    headers = signed(b"a=b")
    form = "application/x-www-form-urlencoded"
    answer = APIClient().generic("POST", "/v1/hooks/worker-claim", "a=b", form, headers=headers)
    assert answer.status_code == 415


def test_a_store_that_fails_leaves_nothing_and_the_message_may_come_again(
    taken: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, saved = Build.objects.get(), default_storage.save
    document = result(taken, artifacts=[{"name": name, "content": "x"} for name in "ab"])
    body = json.dumps(document).encode()
    headers = signed(body)

    def save(name: str, content: Any) -> str:
        if name.endswith("/1"):
            raise OSError("no space left on device")
        return str(saved(name, content))

    with monkeypatch.context() as full:
        full.setattr(default_storage, "save", save)
        assert send_raw("result", body, headers).status_code == 500
        assert_untouched(before)

    assert send_raw("result", body, headers).status_code == 200


def test_what_a_process_that_died_had_stored_goes_when_the_report_comes_again(taken: dict[str, Any]) -> None:
    for name in ("0", "1"):
        default_storage.save(f"{taken['jobId']}/1/{name}", ContentFile(b"half a fi"))

    assert send("result", result(taken)).status_code == 200

    artifact = Artifact.objects.get()
    assert [f"{taken['jobId']}/1/{name}" for name in stored(taken["jobId"])] == [artifact.storage_key]
    with default_storage.open(artifact.storage_key) as file:
        assert file.read() == b"run()"


def test_a_report_whose_lock_was_lost_changes_nothing(taken: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    before = Build.objects.get()

    def lost(self: Any, response: Any) -> None:
        assert stored(taken["jobId"]) == ["0"]  # the files were there already
        raise idempotency.InProgress

    monkeypatch.setattr(idempotency.Claim, "keep", lost)
    answer = send("result", result(taken))

    assert (answer.status_code, code(answer)) == (409, "message_in_progress")
    assert_untouched(before)


# --- The same message again --------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
def test_the_same_message_gets_the_same_answer_and_changes_nothing_more(
    taken: dict[str, Any], queue_build: QueueBuild, door: str
) -> None:
    for _ in range(2):
        queue_build(is_external=True)
    body = everything(taken, door)
    message_id = "msg_once"

    first = send_raw(door, body, signed(body, message_id=message_id))
    lease = Build.objects.get(pk=taken["jobId"]).lease_expires_at
    later = send_raw(door, body, signed(body, message_id=message_id, age=100))  # delivered again, and signed anew

    assert (first.status_code, later.status_code) == (200, 200)
    assert first.content == later.content
    assert later["Idempotency-Replayed"] == "true"
    assert Build.objects.get(pk=taken["jobId"]).lease_expires_at == lease
    assert Build.objects.filter(status="queued").count() == (1 if door == "claim" else 2)
    assert LogChunk.objects.count() == (1 if door == "result" else 0)


def test_an_id_with_another_message_is_refused(taken: dict[str, Any], client: APIClient) -> None:
    first = send("result", result(taken), message_id="msg_1")

    other_body = send("result", of(taken, status="failed"), message_id="msg_1")
    other_door = send("claim", {}, message_id="msg_1")

    assert first.status_code == 200
    assert [(answer.status_code, code(answer)) for answer in (other_body, other_door)] == [
        (422, "message_id_reused")
    ] * 2
    assert Build.objects.get().status == "completed"


def test_the_same_result_under_another_id_is_refused(taken: dict[str, Any]) -> None:
    assert send("result", result(taken)).status_code == 200

    again = send("result", result(taken, artifacts=[{"name": "other", "content": "x"}]))

    assert (again.status_code, code(again)) == (409, "build_ended")
    assert Artifact.objects.get().name == "dist/app.js"
    assert stored(taken["jobId"]) == ["0"]


def at_once(count: int, send_one: Callable[[int], Any]) -> list[Any]:
    def run(number: int) -> Any:
        try:
            return send_one(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("door", DOORS)
def test_twenty_of_the_same_message_at_once_make_one_change_and_get_one_answer(
    taken: dict[str, Any], queue_build: QueueBuild, door: str
) -> None:
    for _ in range(3):
        queue_build(is_external=True)
    body = everything(taken, door)
    headers = signed(body)

    answers = at_once(20, lambda _: send_raw(door, body, headers))

    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert sum("Idempotency-Replayed" not in answer for answer in answers) == 1
    assert Build.objects.filter(status="queued").count() == (2 if door == "claim" else 3)
    if door == "result":
        assert BuildEvent.objects.filter(build=taken["jobId"], to_status="completed").count() == 1
        assert (LogChunk.objects.count(), Artifact.objects.count(), stored(taken["jobId"])) == (1, 1, ["0"])


@pytest.mark.django_db(transaction=True)
def test_twenty_results_of_one_build_under_ids_of_their_own_make_one_change(taken: dict[str, Any]) -> None:
    def report(number: int) -> Any:
        return send("result", result(taken, artifacts=[{"name": f"by-{number}", "content": f"{number}"}]))

    answers = at_once(20, report)

    [winner] = [number for number, answer in enumerate(answers) if answer.status_code == 200]
    losers = [answer for answer in answers if answer.status_code != 200]
    assert {(answer.status_code, code(answer)) for answer in losers} == {(409, "build_ended")}
    artifact = Artifact.objects.get()
    assert artifact.name == f"by-{winner}"
    with default_storage.open(artifact.storage_key) as file:
        assert file.read() == f"{winner}".encode()
    assert len(stored(taken["jobId"])) == 1
    assert LogChunk.objects.count() == 1


def test_a_result_whose_files_another_has_tidied_away_comes_too_late(
    taken: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = artifacts._store

    def overtaken(*args: Any) -> Any:
        monkeypatch.setattr(artifacts, "_store", store)
        assert send("result", result(taken)).status_code == 200
        raise FileNotFoundError

    monkeypatch.setattr(artifacts, "_store", overtaken)

    answer = send("result", result(taken, logs="late\n"))

    assert (answer.status_code, code(answer)) == (409, "build_ended")
    assert len(stored(taken["jobId"])) == 1


@pytest.mark.django_db(transaction=True)
def test_many_builders_that_claim_at_once_get_a_build_each(queue_build: QueueBuild) -> None:
    builds = {str(queue_build(is_external=True).pk) for _ in range(6)}

    answers = at_once(8, lambda _: send("claim", {}))

    assert sorted(answer.status_code for answer in answers) == [200] * 6 + [204] * 2
    assert {answer.json()["jobId"] for answer in answers if answer.status_code == 200} == builds


@pytest.mark.django_db(transaction=True)
def test_a_result_against_a_cancel_is_one_or_the_other(queue_build: QueueBuild, owner: User) -> None:
    for _ in range(5):
        build = queue_build(is_external=True)
        taken = send("claim", {}).json()

        def race(number: int, taken: dict[str, Any] = taken, build: Build = build) -> Any:
            if number:
                return actions.cancel_build(Build.objects.get(pk=build.pk), by=owner)
            return send("result", result(taken)).status_code

        told, is_cancelled = at_once(2, race)

        build.refresh_from_db()
        assert (told, is_cancelled, build.status) in {(200, False, "completed"), (409, True, "cancelled")}
        assert BuildEvent.objects.filter(build=build, to_status__in=["completed", "cancelled"]).count() == 1
        assert stored(taken["jobId"]) == (["0"] if told == 200 else [])
