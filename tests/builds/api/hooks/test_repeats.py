"""Messages that come again, and many at once."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from rest_framework.test import APIClient

from builds import actions, artifacts
from builds.models import Artifact, Build, BuildEvent, LogChunk
from tests.builds.api.hooks.messages import DOORS, QueueBuild, at_once, everything, of, result, stored
from tests.builds.signing import code, send, send_raw, signed

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


@pytest.mark.usefixtures("each_store")
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


@pytest.mark.usefixtures("each_store")
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


@pytest.mark.usefixtures("each_store")
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
        assert len(stored(taken["jobId"])) == (1 if told == 200 else 0)
