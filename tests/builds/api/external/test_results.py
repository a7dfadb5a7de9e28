"""What a reported result changes, and that a refused one changes nothing."""

import base64
import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from builds import actions
from builds.models import Artifact, Build, BuildEvent, LogChunk
from builds.queue.claims import claim
from builds.reaper import reap_abandoned
from projects.environment import Secret
from projects.idempotency_keys import IdempotencyKeys
from projects.models import EnvironmentVariable, IdempotencyKey
from tests.answers import body_of
from tests.builds.api.external.messages import (
    HIDDEN,
    QueueBuild,
    assert_untouched,
    message_for,
    refused,
    result,
    stored,
)
from tests.builds.signing import code, send, send_raw, signed

pytestmark = pytest.mark.once("postgresql")

# --- Results -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("each_store")
def test_a_result_ends_a_build_with_its_log_and_its_artifacts(claimed: dict[str, Any], client: APIClient) -> None:
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

    answer = send("result", result(claimed, artifacts=files, logs=logs))

    assert (answer.status_code, answer.json()) == (200, message_for(claimed, status="completed"))
    shown = client.get(f"/v1/builds/{claimed['jobId']}").json()
    assert (shown["status"], shown["progress"], shown["verdict"]) == ("completed", 100, None)
    assert shown["usage"]["diskBytes"] == len("rün()".encode()) + 256
    assert shown["usage"]["logBytes"] > 0
    place = f"/v1/projects/{claimed['projectId']}"
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


def test_a_failure_keeps_the_reported_verdict(claimed: dict[str, Any], client: APIClient) -> None:
    reported = {
        "code": "type_error",
        "message": "Types.",
        "evidence": ["a.ts: no\x1b[2J"],
        "exitCode": 2,
        "phase": "build",
    }

    answer = send("result", message_for(claimed, status="failed", verdict=reported, logs="a.ts: no\n"))

    assert answer.json() == message_for(claimed, status="failed")
    verdict = client.get(f"/v1/builds/{claimed['jobId']}").json()["verdict"]
    hint = verdict.pop("hint")
    assert hint == "Fix the type errors shown in the evidence."
    assert verdict == {
        "class": "build",
        "code": "type_error",
        "phase": "build",
        "message": "Types.",
        "evidence": ["a.ts: no"],
        "retryable": False,
        "exitCode": 2,
    }


def test_a_failure_without_a_verdict_is_blamed_on_the_build(claimed: dict[str, Any]) -> None:
    assert send("result", message_for(claimed, status="failed")).status_code == 200

    build = Build.objects.get()
    assert build.verdict
    assert (build.verdict["code"], build.verdict_class) == ("build_failed", "build")


def test_a_builder_failure_requeues_the_build_until_its_attempts_are_exhausted(
    claimed: dict[str, Any], settings: Settings
) -> None:
    settings.MAX_ATTEMPTS = 2
    reported = {"code": "internal_error", "evidence": ["no disk"]}

    first = send("result", message_for(claimed, status="failed", verdict=reported))
    assert first.json() == message_for(claimed, status="queued")
    Build.objects.update(available_at=timezone.now())
    again = send("claim", {}).json()
    last = send("result", message_for(again, status="failed", verdict=reported))

    assert last.json() == message_for(again, status="failed")
    build = Build.objects.get()
    assert build.verdict
    assert (build.verdict["code"], build.verdict["evidence"]) == ("attempts_exhausted", ["internal_error: no disk"])
    assert [attempt.outcome for attempt in build.attempts.all()] == ["internal_error", "internal_error"]


def test_project_secrets_are_masked_in_logs_and_verdicts(queue_build: QueueBuild) -> None:
    queue_build(is_external=True, secrets={"API_KEY": Secret(HIDDEN)})
    claimed = send("claim", {}).json()
    reported = {"message": f"no {HIDDEN}", "hint": f"not {HIDDEN}", "evidence": [f"key={HIDDEN}"]}
    pieces = [{"text": HIDDEN[:9]}, {"text": HIDDEN[9:] + "\n"}, {"text": base64.b64encode(HIDDEN.encode()).decode()}]

    assert send("result", message_for(claimed, status="failed", verdict=reported, logs=pieces)).status_code == 200

    build = Build.objects.get()
    log = "".join(LogChunk.objects.filter(build=build).values_list("text", flat=True))
    assert log.count("[secret API_KEY]") == 2
    assert HIDDEN not in log + json.dumps(build.verdict)
    assert json.dumps(build.verdict).count("[secret API_KEY]") == 3


def test_texts_that_cannot_be_masked_are_left_out_with_a_note(queue_build: QueueBuild) -> None:
    queue_build(is_external=True, secrets={"API_KEY": Secret(HIDDEN)})
    claimed = send("claim", {}).json()
    EnvironmentVariable.objects.update(sealed_value="sealed by nobody")
    reported = {"code": "type_error", "message": HIDDEN, "evidence": [HIDDEN]}

    assert send("result", message_for(claimed, status="failed", verdict=reported, logs=HIDDEN)).status_code == 200

    build = Build.objects.get()
    log = "".join(LogChunk.objects.filter(build=build).values_list("text", flat=True))
    assert "API_KEY cannot be read" in log
    assert build.verdict
    assert build.verdict["code"] == "type_error"
    assert HIDDEN not in log + json.dumps(build.verdict)


def test_a_truncated_log_is_marked(claimed: dict[str, Any], settings: Settings) -> None:
    settings.MAX_LOG_BYTES = 2 * 600_000
    lines = "".join(f"{number:07} {'x' * 92}\n" for number in range(20_000))

    assert send("result", result(claimed, logs=lines)).status_code == 200

    build = Build.objects.get()
    log = "".join(LogChunk.objects.filter(build=build).values_list("text", flat=True))
    assert log.startswith("0000000 ")
    assert log.endswith("x\n")
    assert "0019999" in log
    assert "bytes of output were left out here" in log
    assert build.log_truncated
    assert build.log_bytes <= 600_000


# --- Refused: nothing changed ------------------------------------------------------------------------------------


def test_a_stale_fence_is_refused(claimed: dict[str, Any]) -> None:
    Build.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    reap_abandoned()
    assert refused(claimed) == (409, "stale_fence")  # it is queued again

    Build.objects.update(available_at=timezone.now())
    again = send("claim", {}).json()

    assert again["fence"] == 2
    assert refused(claimed) == (409, "stale_fence")
    assert refused(again, fence=3) == (409, "stale_fence")
    assert send("result", result(again)).status_code == 200


def test_a_result_after_its_lease_expired_is_refused(claimed: dict[str, Any]) -> None:
    Build.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))

    assert refused(claimed) == (409, "lease_expired")


def test_a_result_for_a_cancelled_build_is_refused(claimed: dict[str, Any], owner: User) -> None:
    actions.cancel_build(Build.objects.get(), by=owner)

    assert refused(claimed) == (409, "build_ended")


def test_a_result_for_a_local_build_is_refused(queue_build: QueueBuild) -> None:
    build = queue_build()
    assert claim("worker")

    assert refused({"jobId": str(build.pk), "fence": 1}) == (409, "not_external")


def test_messages_about_an_unknown_build_are_refused(db: None) -> None:
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
        ({"status": "failed", "verdict": {"code": "nonsense"}}, "verdict.code", {"invalid_choice"}),
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
def test_a_malformed_result_is_refused(
    claimed: dict[str, Any], change: dict[str, Any], attr: str, codes: set[str]
) -> None:
    before = Build.objects.get()

    answer = send("result", result(claimed) | change)

    assert answer.status_code == 400
    errors = answer.json()["errors"]
    assert {error["attr"] for error in errors} == {attr}
    assert {error["code"] for error in errors} == codes
    assert_untouched(before)


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a/../b", "./a", "a//b", "a/", "", "a\\b", "a\nb", "a\0b", "a\u202eb", "x" * 1025],
)
def test_unsafe_artifact_names_are_refused(claimed: dict[str, Any], name: str) -> None:
    before = Build.objects.get()
    files = [{"name": "fine", "content": "x"}, {"name": name, "content": "x"}]

    answer = send("result", result(claimed, artifacts=files))

    assert (answer.status_code, code(answer)) == (400, "invalid_artifact")
    assert_untouched(before)


def test_an_artifact_that_is_also_a_folder_is_refused(claimed: dict[str, Any]) -> None:
    files = [{"name": "a", "content": "x"}, {"name": "a/b", "content": "x"}]

    assert code(send("result", result(claimed, artifacts=files))) == "duplicate_path"


@pytest.mark.usefixtures("each_store")
def test_artifacts_beyond_the_installation_s_limits_are_refused(claimed: dict[str, Any], settings: Settings) -> None:
    before = Build.objects.get()
    files = [{"name": f"{number}", "content": "12345"} for number in range(3)]

    settings.MAX_ARTIFACTS = 2
    many = send("result", result(claimed, artifacts=files))
    settings.MAX_ARTIFACTS, settings.MAX_ARTIFACT_BYTES = 3, 14
    large = send("result", result(claimed, artifacts=files))
    assert_untouched(before)
    settings.MAX_ARTIFACT_BYTES = 15

    assert (code(many), code(large)) == ("too_many", "artifacts_too_large")
    assert send("result", result(claimed, artifacts=files)).status_code == 200


def test_a_body_that_is_not_a_json_object_is_refused(db: None) -> None:
    for body, status in ((b"{", 400), (b"[]", 400), (b"null", 400)):
        assert send_raw("claim", body, signed(body)).status_code == status
    headers = signed(b"a=b")
    form = "application/x-www-form-urlencoded"
    answer = APIClient().generic("POST", "/v1/hooks/worker-claim", "a=b", form, headers=headers)
    assert answer.status_code == 415


@pytest.mark.usefixtures("each_store")
def test_a_failed_save_leaves_nothing_and_the_message_can_be_repeated(
    claimed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, saved = Build.objects.get(), default_storage.save
    document = result(claimed, artifacts=[{"name": name, "content": "x"} for name in "ab"])
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


@pytest.mark.usefixtures("each_store")
def test_files_of_a_crashed_attempt_to_report_are_replaced_by_the_repeat(claimed: dict[str, Any]) -> None:
    for name in ("0", "1"):
        default_storage.save(f"{claimed['jobId']}/1/{name}", ContentFile(b"half a fi"))

    assert send("result", result(claimed)).status_code == 200

    artifact = Artifact.objects.get()
    assert [f"{claimed['jobId']}/1/{name}" for name in stored(claimed["jobId"])] == [artifact.storage_key]
    with default_storage.open(artifact.storage_key) as file:
        assert file.read() == b"run()"


@pytest.mark.usefixtures("each_store")
def test_a_report_that_lost_its_lock_changes_nothing(claimed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    before = Build.objects.get()

    def lost(self: Any, pk: int, **answer: Any) -> bool:
        assert len(stored(claimed["jobId"])) == 1  # the files were there already
        return False

    monkeypatch.setattr(IdempotencyKeys, "keep", lost)
    answer = send("result", result(claimed))

    assert (answer.status_code, code(answer)) == (409, "message_in_progress")
    assert_untouched(before)
