"""Repeated and concurrent messages."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from rest_framework.test import APIClient

from builds import actions, artifacts
from builds.models import Artifact, Build, BuildEvent, LogChunk
from tests.builds.api.external.messages import (
    HOOKS,
    QueueBuild,
    body_for,
    message_for,
    result,
    run_concurrently,
    stored,
)
from tests.builds.signing import code, send, send_raw, signed

# --- The same message again --------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", HOOKS)
def test_a_repeated_message_gets_the_same_answer_and_changes_nothing(
    claimed: dict[str, Any], queue_build: QueueBuild, hook: str
) -> None:
    for _ in range(2):
        queue_build(is_external=True)
    body = body_for(claimed, hook)
    message_id = "msg_once"

    first = send_raw(hook, body, signed(body, message_id=message_id))
    lease = Build.objects.get(pk=claimed["jobId"]).lease_expires_at
    later = send_raw(hook, body, signed(body, message_id=message_id, age=100))  # a redelivery, signed again

    assert (first.status_code, later.status_code) == (200, 200)
    assert first.content == later.content
    assert later["Idempotency-Replayed"] == "true"
    assert Build.objects.get(pk=claimed["jobId"]).lease_expires_at == lease
    assert Build.objects.filter(status="queued").count() == (1 if hook == "claim" else 2)
    assert LogChunk.objects.count() == (1 if hook == "result" else 0)


def test_a_reused_message_id_with_different_content_is_refused(claimed: dict[str, Any], client: APIClient) -> None:
    first = send("result", result(claimed), message_id="msg_1")

    other_body = send("result", message_for(claimed, status="failed"), message_id="msg_1")
    other_hook = send("claim", {}, message_id="msg_1")

    assert first.status_code == 200
    assert [(answer.status_code, code(answer)) for answer in (other_body, other_hook)] == [
        (422, "message_id_reused")
    ] * 2
    assert Build.objects.get().status == "completed"


def test_a_second_result_under_another_id_is_refused(claimed: dict[str, Any]) -> None:
    assert send("result", result(claimed)).status_code == 200

    again = send("result", result(claimed, artifacts=[{"name": "other", "content": "x"}]))

    assert (again.status_code, code(again)) == (409, "build_ended")
    assert Artifact.objects.get().name == "dist/app.js"
    assert stored(claimed["jobId"]) == ["0"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("hook", HOOKS)
def test_twenty_concurrent_copies_of_a_message_make_one_change_and_get_one_answer(
    claimed: dict[str, Any], queue_build: QueueBuild, hook: str
) -> None:
    for _ in range(3):
        queue_build(is_external=True)
    body = body_for(claimed, hook)
    headers = signed(body)

    answers = run_concurrently(20, lambda _: send_raw(hook, body, headers))

    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert sum("Idempotency-Replayed" not in answer for answer in answers) == 1
    assert Build.objects.filter(status="queued").count() == (2 if hook == "claim" else 3)
    if hook == "result":
        assert BuildEvent.objects.filter(build=claimed["jobId"], to_status="completed").count() == 1
        assert (LogChunk.objects.count(), Artifact.objects.count(), stored(claimed["jobId"])) == (1, 1, ["0"])


@pytest.mark.usefixtures("each_store")
@pytest.mark.django_db(transaction=True)
def test_twenty_concurrent_results_with_different_ids_make_one_change(claimed: dict[str, Any]) -> None:
    def report(number: int) -> Any:
        return send("result", result(claimed, artifacts=[{"name": f"by-{number}", "content": f"{number}"}]))

    answers = run_concurrently(20, report)

    [winner] = [number for number, answer in enumerate(answers) if answer.status_code == 200]
    losers = [answer for answer in answers if answer.status_code != 200]
    assert {(answer.status_code, code(answer)) for answer in losers} == {(409, "build_ended")}
    artifact = Artifact.objects.get()
    assert artifact.name == f"by-{winner}"
    with default_storage.open(artifact.storage_key) as file:
        assert file.read() == f"{winner}".encode()
    assert len(stored(claimed["jobId"])) == 1
    assert LogChunk.objects.count() == 1


@pytest.mark.usefixtures("each_store")
def test_a_result_whose_files_were_deleted_by_a_concurrent_one_is_refused(
    claimed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = artifacts._store

    def overtaken(*args: Any) -> Any:
        monkeypatch.setattr(artifacts, "_store", store)
        assert send("result", result(claimed)).status_code == 200
        raise FileNotFoundError

    monkeypatch.setattr(artifacts, "_store", overtaken)

    answer = send("result", result(claimed, logs="late\n"))

    assert (answer.status_code, code(answer)) == (409, "build_ended")
    assert len(stored(claimed["jobId"])) == 1


@pytest.mark.django_db(transaction=True)
def test_concurrent_claims_get_different_builds(queue_build: QueueBuild) -> None:
    builds = {str(queue_build(is_external=True).pk) for _ in range(6)}

    answers = run_concurrently(8, lambda _: send("claim", {}))

    assert sorted(answer.status_code for answer in answers) == [200] * 6 + [204] * 2
    assert {answer.json()["jobId"] for answer in answers if answer.status_code == 200} == builds


@pytest.mark.usefixtures("each_store")
@pytest.mark.django_db(transaction=True)
def test_a_result_racing_a_cancel_has_one_winner(queue_build: QueueBuild, owner: User) -> None:
    for _ in range(5):
        build = queue_build(is_external=True)
        claimed = send("claim", {}).json()

        def race(number: int, claimed: dict[str, Any] = claimed, build: Build = build) -> Any:
            if number:
                return actions.cancel_build(Build.objects.get(pk=build.pk), by=owner)
            return send("result", result(claimed)).status_code

        status, is_cancelled = run_concurrently(2, race)

        build.refresh_from_db()
        assert (status, is_cancelled, build.status) in {(200, False, "completed"), (409, True, "cancelled")}
        assert BuildEvent.objects.filter(build=build, to_status__in=["completed", "cancelled"]).count() == 1
        assert len(stored(claimed["jobId"])) == (1 if status == 200 else 0)
