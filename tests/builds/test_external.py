"""The external queue: its builds are never claimed by local workers and do not delay local builds."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from builds import actions
from builds.models import Build, ExternalFairShare, FairShare, Priority
from builds.operations import health
from builds.queue import forecast
from builds.queue.claims import EXTERNAL_BUILDS, LOCAL_BUILDS, BuildLease, claim
from builds.reaper import reap_abandoned
from chef.jobs.capacity import OwnerQueueFullError, QueueFullError
from chef.jobs.models import Status
from chef.jobs.reaping import wake_up_for_waiting
from tests.builds.signing import SECRET

QueueBuild = Callable[..., Build]
FILES = {"files": {"index.html": "<h1>hi</h1>"}}


@pytest.fixture(autouse=True)
def _secret(settings: Settings) -> None:
    settings.WORKER_SECRETS = [SECRET]


@pytest.fixture
def client(owner: User, make_client: Callable[..., APIClient]) -> APIClient:
    return make_client(owner)


def claim_external() -> BuildLease | None:
    return claim("external", is_external=True)


def end(lease: BuildLease | None, build: Build) -> None:
    assert lease
    assert lease.build == build
    lease.end(Status.COMPLETED)


# --- Claiming --------------------------------------------------------------------------------------------------------


def test_local_workers_skip_external_builds(queue_build: QueueBuild) -> None:
    queue_build(is_external=True, priority=Priority.HIGH)
    local = queue_build()

    end(claim("w"), local)

    assert claim("w") is None


def test_external_builders_get_only_external_builds(queue_build: QueueBuild) -> None:
    queue_build(priority=Priority.HIGH)
    external = queue_build(is_external=True)

    lease = claim_external()

    assert lease
    assert (lease.build, lease.fence, lease.build.worker) == (external, 1, "external")
    assert claim_external() is None


def test_no_worker_is_woken_up_for_an_external_build(
    queue_build: QueueBuild, django_capture_on_commit_callbacks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[int] = []

    def wake_up(times: int = 1) -> bool:
        woken.append(times)
        return True

    monkeypatch.setattr(LOCAL_BUILDS.workers, "wake_up", wake_up)
    monkeypatch.setattr(LOCAL_BUILDS.workers, "pending", lambda: 0)

    with django_capture_on_commit_callbacks(execute=True):
        queue_build(is_external=True)
    for queue in (LOCAL_BUILDS, EXTERNAL_BUILDS):
        wake_up_for_waiting(queue)
    assert woken == []

    with django_capture_on_commit_callbacks(execute=True):
        queue_build()
    wake_up_for_waiting(LOCAL_BUILDS)
    assert woken == [1, 1]


def test_the_external_queue_has_the_same_order_as_the_local_one(
    queue_build: QueueBuild, owner: User, other: User
) -> None:
    first = queue_build(is_external=True)
    second = actions.queue_build(first.revision, by=owner, is_external=True)
    theirs = queue_build(by=other, is_external=True)
    urgent = queue_build(is_external=True, priority=Priority.HIGH)

    claimed = [lease.build for _ in range(4) if (lease := claim_external())]

    assert claimed == [urgent, theirs, first, second]


def test_fair_share_is_counted_per_queue(queue_build: QueueBuild, owner: User, other: User) -> None:
    mine = [queue_build(), queue_build()]
    theirs, external = queue_build(by=other), queue_build(is_external=True)
    end(claim_external(), external)

    # If the external build counted here, the other owner would be first.
    end(claim("w"), mine[0])
    end(claim("w"), theirs)
    end(claim("w"), mine[1])

    assert FairShare.objects.count() == 2
    assert ExternalFairShare.objects.get().owner == owner


def test_running_external_builds_do_not_count_towards_local_limits(
    queue_build: QueueBuild, other: User, settings: Settings
) -> None:
    settings.OWNER_MAX_RUNNING = 1
    queue_build(is_external=True)
    queue_build(is_external=True)
    mine = queue_build()
    queue_build(by=other)
    assert claim_external()

    here, there = claim("w"), claim_external()

    assert here
    assert here.build == mine
    assert there is None  # the limit holds for external builds too


def test_an_external_lease_is_longer_and_is_reaped_like_others(queue_build: QueueBuild, settings: Settings) -> None:
    settings.LEASE_SECONDS, settings.OUTSIDE_LEASE_SECONDS = 10, 600
    build = queue_build(is_external=True)
    lease = claim_external()
    assert lease
    assert lease.build.lease_expires_at
    assert lease.build.lease_expires_at > timezone.now() + timedelta(seconds=500)
    assert reap_abandoned() == 0

    Build.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))

    assert reap_abandoned() == 1
    build.refresh_from_db()
    assert (build.status, build.faults, build.is_external) == (Status.QUEUED, 1, True)
    assert build.attempts.get().outcome == "worker_lost"


# --- Forecasts and counts --------------------------------------------------------------------------------------------


def test_external_builds_do_not_change_the_local_forecast(queue_build: QueueBuild, other: User) -> None:
    local = [queue_build(), queue_build(by=other), queue_build(priority=Priority.HIGH)]
    before = forecast.queue_documents(local)
    for _ in range(3):
        queue_build(is_external=True, priority=Priority.HIGH)
    assert claim_external()
    forecast.forget()

    assert forecast.queue_documents(local) == before


def test_external_builds_are_ordered_by_priority_and_age(queue_build: QueueBuild, owner: User) -> None:
    first, second = queue_build(is_external=True), queue_build(is_external=True)
    urgent = queue_build(is_external=True, priority=Priority.HIGH)
    waiting = queue_build(is_external=True)
    Build.objects.filter(pk=waiting.pk).update(available_at=timezone.now() + timedelta(hours=1))

    shown = forecast.queue_documents([first, second, urgent, waiting])

    assert [shown[build.pk]["position"] for build in (urgent, first, second, waiting)] == [1, 2, 3, 4]
    assert {document["etaSeconds"] for document in shown.values()} == {None}
    assert shown[waiting.pk]["blockedBy"] == "backoff"
    assert shown[first.pk]["blockedBy"] is None


def test_health_counts_only_the_local_queue(queue_build: QueueBuild) -> None:
    queue_build(is_external=True)
    queue_build(is_external=True)
    claim_external()
    queue_build()

    hosts = health._hosts()  # called directly: the threads of its pool cannot see the test's transaction

    assert (hosts["queue"]["depth"], hosts["workers"]["busy"]) == (1, 0)
    claim("w")
    hosts = health._hosts()
    assert (hosts["queue"]["depth"], hosts["workers"]["busy"]) == (0, 1)


def test_each_queue_has_its_own_limits(queue_build: QueueBuild, other: User, settings: Settings) -> None:
    settings.OWNER_MAX_QUEUED = 1
    queue_build(is_external=True)
    queue_build()
    with pytest.raises(OwnerQueueFullError) as of_owner:
        queue_build(is_external=True)
    settings.MAX_QUEUED = 1
    with pytest.raises(QueueFullError):
        queue_build(by=other, is_external=True)

    assert of_owner.value.retry_after == forecast.USUAL_WAIT
    assert Build.objects.count() == 2


def test_staff_can_filter_by_queue(queue_build: QueueBuild, client: APIClient) -> None:
    external, local = queue_build(is_external=True), queue_build()
    client.logout()
    client.force_login(User.objects.create_superuser("staff"))

    page = client.get("/admin/builds/build/?is_external__exact=1").content.decode()

    assert str(external.pk) in page
    assert str(local.pk) not in page


# --- Choosing the queue ----------------------------------------------------------------------------------------------


def queue_of(answer: Any) -> bool:
    assert answer.status_code == 201, answer.content
    return Build.objects.get(pk=answer.json()["jobId"]).is_external


def test_a_submission_chooses_its_queue(client: APIClient) -> None:
    assert queue_of(client.post("/v1/projects", {**FILES, "queue": "external"})) is True
    assert queue_of(client.post("/v1/projects", {**FILES, "queue": "local"})) is False
    assert queue_of(client.post("/v1/projects", FILES)) is False
    assert client.post("/v1/projects", {**FILES, "queue": "elsewhere"}).status_code == 400


@pytest.mark.parametrize(("endpoint", "body"), [("builds", {}), ("revisions", FILES)])
def test_later_builds_of_a_project_use_its_last_queue_by_default(
    client: APIClient, queue_build: QueueBuild, endpoint: str, body: dict[str, Any]
) -> None:
    path = f"/v1/projects/{queue_build(is_external=True).project_id}/{endpoint}"

    assert queue_of(client.post(path, body)) is True
    assert queue_of(client.post(path, {**body, "queue": "local"})) is False
    assert queue_of(client.post(path, body)) is False
    assert queue_of(client.post(path, {**body, "queue": "external"})) is True


def test_a_retry_uses_the_build_s_queue(client: APIClient, queue_build: QueueBuild) -> None:
    build = queue_build(is_external=True)
    end(claim_external(), build)
    actions.queue_build(build.revision, by=build.owner, is_external=False)

    answer = client.post(f"/v1/builds/{build.pk}/retry")

    assert queue_of(answer) is True
    assert answer.json()["external"] is True


def test_without_an_external_builder_an_external_build_is_refused(
    client: APIClient, queue_build: QueueBuild, settings: Settings
) -> None:
    build = queue_build(is_external=True)
    end(claim_external(), build)
    settings.WORKER_SECRETS = []

    answers = [
        client.post("/v1/projects", {**FILES, "queue": "external"}),
        client.post(f"/v1/projects/{build.project_id}/builds"),
        client.post(f"/v1/projects/{build.project_id}/revisions", {**FILES, "queue": "external"}),
        client.post(f"/v1/builds/{build.pk}/retry"),
    ]

    assert {(answer.status_code, answer.json()["errors"][0]["code"]) for answer in answers} == {
        (409, "no_outside_builder")
    }
    assert Build.objects.count() == 1
    assert build.project.revisions.count() == 1
