"""Staff operations on builds and projects: confirmed first, done once, logged, refused if not applicable."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client
from pytest_django import DjangoCaptureOnCommitCallbacks
from rest_framework.test import APIClient

from builds.models import Artifact, Attempt, Build, LogChunk, PhaseName, Release
from builds.queue import forecast
from builds.queue.claims import claim
from builds.sites.publishing import NotServableError, publish_build
from chef.jobs.leases import LeaseLostError
from projects.models import Project, Quarantine
from tests.builds.admin.conftest import BUILDS, MakeBuild, operate

QueueBuild = Callable[..., Build]
PROJECTS = "/admin/projects/project/"


def log_messages(of: Any) -> list[tuple[str, str]]:
    rows = LogEntry.objects.filter(object_id=str(of.pk)).order_by("pk")
    return [(entry.user.username, entry.get_change_message()) for entry in rows]


def test_an_operation_is_explained_before_it_is_confirmed(
    operator: Client, ended_build: MakeBuild, queue_build: QueueBuild
) -> None:
    broken, waiting = ended_build("type_error", name="broken"), queue_build(name="waiting")

    chosen = operator.post(
        BUILDS, {"action": "retry", "_selected_action": [str(broken.pk), str(waiting.pk)]}, follow=True
    )

    page = chosen.content.decode()
    assert chosen.redirect_chain[0][0].startswith(f"{BUILDS}operate/retry/?id=")
    assert "a new build of the same revision" in page
    assert "broken #1" in page
    assert "Left out. It is queued: only what has ended can be retried." in page
    assert Build.objects.count() == 2
    assert not LogEntry.objects.exists()


def test_retry_makes_a_new_build_and_is_logged(operator: Client, ended_build: MakeBuild) -> None:
    build = ended_build("type_error")

    answer = operate(operator, "retry", build.pk)

    again = Build.objects.get(retry_of=build)
    assert (again.status, again.number) == ("queued", 2)
    assert log_messages(build) == [("operator", f"Retried as #2 ({again.pk}).")]
    assert answer.redirect_chain[-1][0] == f"{BUILDS}{build.pk}/change/"
    assert "Retried as #2" in operator.get(f"{BUILDS}{build.pk}/history/").content.decode()


def test_bulk_operations_skip_rows_that_do_not_allow_them(
    operator: Client, ended_build: MakeBuild, queue_build: QueueBuild
) -> None:
    failed, waiting = ended_build("type_error"), [queue_build(name=f"w{number}") for number in range(3)]

    page = operate(operator, "cancel", failed.pk, *(build.pk for build in waiting)).content.decode()

    assert list(Build.objects.filter(status="cancelled").order_by("created_at")) == waiting
    assert "It has ended: it is failed." in page
    assert LogEntry.objects.count() == 3
    event = waiting[0].events.last()
    assert event
    assert event.data["verdict"]["evidence"] == ["cancelled by operator"]


def test_a_worker_loses_a_build_that_is_handed_back(
    operator: Client, queue_build: QueueBuild, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    build, lease = queue_build(), claim("host:1")
    assert lease
    default_storage.save(f"{build.pk}/1/0", ContentFile(b"half"))

    with django_capture_on_commit_callbacks(execute=True):
        operate(operator, "hand-back", build.pk)

    build.refresh_from_db()
    assert (build.status, build.faults, build.phase, build.progress) == ("queued", 0, "", 0)
    assert Attempt.objects.get().outcome == "handed_back"
    assert not default_storage.exists(f"{build.pk}/1/0")
    with pytest.raises(LeaseLostError), lease.writing(phase=PhaseName.BUILD):
        pass
    again = claim("host:2")
    assert again
    assert (again.build.pk, again.fence) == (build.pk, 2)
    with pytest.raises(LeaseLostError), lease.writing(phase=PhaseName.BUILD):
        pass
    assert log_messages(build) == [("operator", "Handed back to the queue: attempt 1 was taken from host:1.")]


# --- Quarantine --------------------------------------------------------------------------------------------------


def test_nothing_runs_for_a_quarantined_project_until_its_release(
    operator: Client, queue_build: QueueBuild, owner: User, make_client: Callable[..., APIClient]
) -> None:
    build, other = queue_build(name="held"), queue_build(name="free")
    client = make_client(owner, scope="publish")
    assert claim("host:1")

    operate(operator, "quarantine", build.pk, reason="It mines coins.")

    build.refresh_from_db()
    assert build.status == "queued"  # it was stopped, and is queued again
    taken = claim("host:2")
    assert taken
    assert taken.build == other
    assert claim("host:3") is None
    forecast.forget()
    build_document = client.get(f"/v1/builds/{build.pk}").json()
    assert build_document["queue"] == {"position": 1, "etaSeconds": None, "blockedBy": "quarantined"}
    for path in (f"/v1/projects/{build.project_id}/builds", f"/v1/projects/{build.project_id}/revisions"):
        answer = client.post(path, {"files": {"index.html": "x"}} if path.endswith("revisions") else {})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (409, "project_quarantined")
    assert build.project.revisions.count() == 1
    assert "It mines coins." in operator.get(f"{BUILDS}{build.pk}/change/").content.decode()
    assert "It mines coins." in operator.get(f"{PROJECTS}{build.project_id}/change/").content.decode()
    assert "held #1" in operator.get(f"{BUILDS}?held=1").content.decode()
    assert "free #1" not in operator.get(f"{BUILDS}?held=1").content.decode()

    operate(operator, "release", build.project_id, page=PROJECTS)

    lease = claim("host:3")
    assert lease
    assert lease.build == build
    assert log_messages(build) == [
        ("operator", "Put in quarantine; 1 running builds were stopped and wait now. Reason: It mines coins.")
    ]
    assert log_messages(build.project) == [("operator", "Released from quarantine: its builds run again.")]


def test_a_quarantine_needs_a_reason(operator: Client, queue_build: QueueBuild) -> None:
    build = queue_build()

    answer = operate(operator, "quarantine", build.pk, reason=" ")

    assert answer.status_code == 400
    assert "Say why" in answer.content.decode()
    assert not Quarantine.objects.exists()


def test_an_ended_build_of_a_quarantined_project_is_not_retried(operator: Client, ended_build: MakeBuild) -> None:
    build = ended_build("type_error")
    operate(operator, "quarantine", build.project_id, page=PROJECTS, reason="x")

    page = operate(operator, "retry", build.pk).content.decode()

    assert "Its project is in quarantine: release it first." in page
    assert Build.objects.count() == 1


# --- Publishing, pruning, deleting -------------------------------------------------------------------------------


def stored(build: Build) -> Build:
    default_storage.save(f"{build.pk}/1/0", ContentFile(b"<h1>hi</h1>"))
    return build


def test_publishing_makes_a_live_release(operator: Client, ended_build: MakeBuild) -> None:
    build = stored(ended_build())

    operate(operator, "publish", build.pk)

    release = Release.objects.get()
    assert release.project.site.live == release
    assert log_messages(build) == [("operator", "Published as release 1, which is live now.")]
    page = operator.get(f"{BUILDS}{build.pk}/change/").content.decode()
    assert "Release 1" in page


def test_pruning_deletes_a_build_s_files_and_keeps_its_record(
    operator: Client, ended_build: MakeBuild, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    build = stored(ended_build())

    with django_capture_on_commit_callbacks(execute=True):
        page = operate(operator, "prune", build.pk).content.decode()

    assert not Artifact.objects.exists()
    assert not LogChunk.objects.exists()
    assert not default_storage.exists(f"{build.pk}/1/0")
    build.refresh_from_db()
    assert build.status == "completed"
    assert build.pruned_at
    assert build.events.count() == 3
    [(_, message)] = log_messages(build)
    assert message.replace("\xa0", " ") == "Pruned: 1 artifacts of 100 bytes and 113 bytes of log are gone."
    assert "It was pruned." in page
    assert "It has already been pruned." in operate(operator, "prune", build.pk).content.decode()
    with pytest.raises(NotServableError, match="has removed"):
        publish_build(build, by=build.owner)


def test_published_and_running_builds_are_not_pruned(
    operator: Client, ended_build: MakeBuild, queue_build: QueueBuild, owner: User
) -> None:
    build, waiting = stored(ended_build()), queue_build(name="waiting")
    publish_build(build, by=owner)

    page = operate(operator, "prune", build.pk, waiting.pk).content.decode()

    assert "It is published" in page
    assert "only finished builds can be pruned" in page
    assert Artifact.objects.count() == 1
    assert not LogEntry.objects.exists()


def test_an_administrator_deletes_a_project_with_all_its_data(
    staff_of: Callable[[str], Client],
    ended_build: MakeBuild,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    build = stored(ended_build())

    with django_capture_on_commit_callbacks(execute=True):
        answer = operate(staff_of("administrator"), "delete", build.project_id, page=PROJECTS)

    assert answer.redirect_chain[-1][0] == PROJECTS
    assert not Project.objects.exists()
    assert not default_storage.exists(f"{build.pk}/1/0")
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.is_deletion()) == (str(build.project_id), True)


# --- At the edges ------------------------------------------------------------------------------------------------


def test_unknown_operations_and_too_many_rows_are_refused(
    operator: Client, queue_build: QueueBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = [queue_build(name=f"b{number}") for number in range(3)]

    assert operator.get(f"{BUILDS}operate/explode/?id={builds[0].pk}").status_code == 404
    for ids in ([], ["nonsense"], ["0" * 32]):
        assert "Nothing was chosen" in operate(operator, "cancel", *ids).content.decode()
    monkeypatch.setattr("projects.admin.operations.MOST_AT_ONCE", 2)
    body = {"action": "cancel", "select_across": "1", "_selected_action": [str(builds[0].pk)]}
    assert "Choose 2 at most" in operator.post(BUILDS, body, follow=True).content.decode()
    assert set(Build.objects.values_list("status", flat=True)) == {"queued"}


def test_a_failed_operation_is_not_logged(
    operator: Client, ended_build: MakeBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = ended_build("type_error")

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the log is full")

    monkeypatch.setattr(LogEntry.objects, "log_actions", fail)
    with pytest.raises(RuntimeError):
        operate(operator, "retry", build.pk)

    assert Build.objects.count() == 1  # nor was the build retried without a log entry
