"""Repeated POST requests take effect once: in parallel, after a crash, and until the key expires."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import IntegrityError, connection, transaction
from django.http import HttpResponse
from django.utils import timezone
from django.utils.module_loading import import_string
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory, force_authenticate
from rest_framework.viewsets import ViewSet

from chef.web.idempotency import (
    Claim,
    IdempotentMixin,
    InProgressError,
    KeyReusedError,
    KeyStore,
    claim,
    claim_or_wait,
    fingerprint_of,
    forget_old_keys,
)
from projects.actions import create_project
from projects.idempotency_keys import IdempotencyKeys
from projects.models import IdempotencyKey, Project


class Projects(IdempotentMixin, ViewSet):
    """Creates a project, or refuses after creating it."""

    permission_classes = ()

    def create(self, request: Any) -> Response:
        project = create_project(by=request.user, name=request.data["name"])
        if request.data["name"] == "raises":
            raise ValidationError("No.")
        status = 400 if request.data["name"] == "refused" else 201
        return Response({"id": str(project.pk)}, status=status, headers={"Location": f"/{project.pk}"})


def post(user: User, key: str = "k", name: str = "todo", path: str = "/v1/projects") -> Any:
    request = APIRequestFactory().post(path, {"name": name}, format="json", headers={"Idempotency-Key": key})
    force_authenticate(request, user)
    return Projects.as_view({"post": "create"})(request).render()


@pytest.fixture(autouse=True)
def _rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow `post` to render replayed answers, which need no rendering."""
    from django.http import HttpResponse

    monkeypatch.setattr(HttpResponse, "render", lambda self: self, raising=False)


def code(answer: Any) -> str:
    return str(answer.data["errors"][0]["code"])


def test_a_repeat_gets_the_same_answer_and_changes_nothing(owner: User) -> None:
    first, second = post(owner), post(owner)

    assert (second.status_code, second.content, second["Location"]) == (201, first.content, first["Location"])
    assert second["Content-Type"] == first["Content-Type"]
    assert "Idempotency-Replayed" not in first
    assert second["Idempotency-Replayed"] == "true"
    assert Project.objects.count() == 1


def test_the_configured_store_implements_the_interface() -> None:
    store: KeyStore = IdempotencyKeys()

    assert import_string(settings.IDEMPOTENCY_KEYS) is type(store)


def test_the_quoted_form_is_the_same_key(owner: User) -> None:
    post(owner, "k")

    assert post(owner, '"k"')["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize("change", [{"name": "other"}, {"path": "/v1/projects?x=1"}])
def test_another_request_with_the_key_is_refused(owner: User, change: dict[str, str]) -> None:
    post(owner)

    answer = post(owner, **change)

    assert (answer.status_code, code(answer)) == (422, "idempotency_key_reused")
    assert Project.objects.count() == 1


@pytest.mark.parametrize("key", ["", '""', "a b", "x" * 256, "\x7f"])
def test_an_invalid_key_is_refused(owner: User, key: str) -> None:
    answer = post(owner, key)

    assert (answer.status_code, code(answer)) == (400, "invalid_idempotency_key")


def test_a_key_belongs_to_its_owner(owner: User, other: User) -> None:
    post(owner)

    assert "Idempotency-Replayed" not in post(other, name="another")
    assert Project.objects.count() == 2


@pytest.mark.parametrize("name", ["raises", "refused"])
def test_a_refused_request_stores_nothing_and_frees_its_key(owner: User, name: str) -> None:
    refused = post(owner, name=name)

    assert refused.status_code == 400
    assert not Project.objects.exists()
    assert post(owner, name="better").status_code == 201


def test_a_repeat_of_a_running_request_has_to_wait(owner: User) -> None:
    IdempotencyKey.objects.create(
        owner=owner, key="k", fingerprint=todo_fingerprint(), locked_until=timezone.now() + timedelta(seconds=9)
    )

    answer = post(owner)

    assert (answer.status_code, code(answer), answer["Retry-After"]) == (409, "idempotency_in_progress", "1")


def test_a_crashed_request_s_key_is_taken_over(owner: User) -> None:
    dead = claim(owner.pk, "k", todo_fingerprint())
    IdempotencyKey.objects.update(locked_until=timezone.now() - timedelta(seconds=1))

    answer = post(owner)
    dead.release()  # type: ignore[union-attr]

    assert answer.status_code == 201
    assert post(owner)["Idempotency-Replayed"] == "true"


def test_an_effect_is_rolled_back_when_the_lock_was_lost(owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    handler: Callable[..., Any] = Projects.create

    def slow(self: Any, request: Request) -> Any:
        IdempotencyKey.objects.update(locked_until=timezone.now() + timedelta(seconds=99))
        return handler(self, request)

    monkeypatch.setattr(Projects, "create", slow)

    assert post(owner).status_code == 409
    assert not Project.objects.exists()


def test_an_expired_key_can_be_used_again(owner: User) -> None:
    post(owner)
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=25))

    assert "Idempotency-Replayed" not in post(owner, name="other")


def test_only_expired_keys_are_deleted(owner: User) -> None:
    post(owner, "old")
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=25))
    post(owner, "young")

    assert forget_old_keys() == 1
    assert [row.key for row in IdempotencyKey.objects.all()] == ["young"]


@pytest.mark.django_db(transaction=True)
def test_fifty_parallel_posts_with_one_key_take_effect_once() -> None:
    user = User.objects.create_user("many")

    def send(_: int) -> Any:
        try:
            return post(user)
        finally:
            connection.close()

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(send, range(50)))

    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert Project.objects.count() == 1


def test_a_message_id_is_unique(db: None) -> None:
    free = claim(None, "msg_1", "x")
    assert isinstance(free, Claim)

    with pytest.raises(InProgressError) as in_progress:
        claim_or_wait(None, "msg_1", "x", seconds=0)
    with pytest.raises(KeyReusedError) as reused:
        claim_or_wait(None, "msg_1", "y", seconds=0)
    assert (in_progress.value.code, reused.value.code) == ("message_in_progress", "message_id_reused")
    with pytest.raises(IntegrityError), transaction.atomic():
        IdempotencyKey.objects.create(key="msg_1", fingerprint="x", locked_until=timezone.now())


@pytest.mark.django_db(transaction=True)
def test_a_waiting_repeat_gets_the_first_answer() -> None:
    first = claim(None, "msg_1", "x")
    assert isinstance(first, Claim)

    def wait() -> Any:
        try:
            return claim_or_wait(None, "msg_1", "x", seconds=30)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        first.keep(HttpResponse(b"done", status=200))
        answer = waiting.result(timeout=30)

    assert (answer.status_code, answer.content) == (200, b"done")


# --- Fingerprints --------------------------------------------------------------------------------------------------


def todo_fingerprint() -> str:
    return fingerprint_of("POST", "/v1/projects", {"name": "todo"})


def test_a_fingerprint_ignores_only_the_order_of_names() -> None:
    bodies: list[Any] = [
        {"a": 1, "b": 2},
        {"a": "1", "b": 2},
        {"a": [1, 2]},
        {"a": [[1], 2]},
        {"a": True},
        {"a": "\ud800"},
    ]

    prints = {fingerprint_of("POST", "/", body) for body in bodies}

    assert len(prints) == len(bodies)
    assert fingerprint_of("POST", "/", {"b": 2, "a": 1}) in prints


def test_a_fingerprint_covers_a_file_s_content_and_leaves_it_readable() -> None:
    one, same, third = (SimpleUploadedFile("a.zip", content) for content in (b"one", b"one", b"two"))

    prints = [fingerprint_of("POST", "/", {"archive": file}) for file in (one, same, third)]

    assert prints[0] == prints[1] != prints[2]
    assert one.read() == b"one"
