"""The list of builds and its search, the page of one build, and the number of queries of both."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from builds.actions import retry_build
from builds.models import Build, BuildEvent, LogChunk
from builds.queue.claims import claim
from builds.sites.publishing import publish_build
from projects.admin import lists
from tests.builds.admin.conftest import BUILDS, MakeBuild

pytestmark = pytest.mark.once("postgresql")

QueueBuild = Callable[..., Build]


def shown(client: Client, query: str = "") -> str:
    answer = client.get(BUILDS + query)
    assert answer.status_code == 200
    return str(answer.content.decode())


def test_the_list_shows_state_verdict_owner_worker_and_times(operator: Client, ended_build: MakeBuild) -> None:
    ended_build("type_error", name="broken")

    page = shown(operator)

    for text in ("broken #1", "failed", "type_error", "owner", "host:1"):
        assert text in page


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?status__exact=failed", {"broken"}),
        ("?status__exact=queued", {"waiting"}),
        ("?verdict_class=build", {"broken"}),
        ("?verdict_class=limit", set()),
        ("?runtime=node", {"fine"}),
        ("?phase=build", set()),
        ("?is_external__exact=1", set()),
        ("?priority__exact=0", {"broken", "fine", "waiting"}),
        ("?held=1", set()),
        ("?q=fin", {"fine"}),
        ("?q=owner", {"broken", "fine", "waiting"}),
        ("?q=owner&status__exact=failed", {"broken"}),
        ("?q=nothing+of+the+kind", set()),
        (f"?created_at__year={timezone.now().year}", {"broken", "fine", "waiting"}),
        ("?created_at__year=2001&created_at__month=2", set()),
        ("?created_at__year=2001&created_at__month=2&created_at__day=3", set()),
    ],
)
def test_filters_dates_and_search_find_builds(
    query: str, found: set[str], operator: Client, ended_build: MakeBuild, queue_build: QueueBuild
) -> None:
    ended_build("type_error", name="broken")
    fine = ended_build(name="fine")
    Build.objects.filter(pk=fine.pk).update(runtime="node")
    queue_build(name="waiting")

    page = shown(operator, query)

    assert {name for name in ("broken", "fine", "waiting") if f"{name} #1" in page} == found


def test_search_finds_builds_by_build_and_project_id(operator: Client, queue_build: QueueBuild) -> None:
    one, other = queue_build(name="one"), queue_build(name="other")

    assert "one #1" in shown(operator, f"?q={one.pk}")
    assert "other #1" not in shown(operator, f"?q={one.pk}")
    assert "other #1" in shown(operator, f"?q={other.project_id}")
    assert "other #1" in shown(operator, f"?project__id__exact={other.project_id}")


def test_a_long_list_is_paged_and_says_where_it_is_cut(
    operator: Client, queue_build: QueueBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "MOST", 4)
    monkeypatch.setattr("builds.admin.builds.BuildAdmin.list_per_page", 2)
    builds = [queue_build(name=f"project-{number}") for number in range(6)]

    first, last = shown(operator), shown(operator, "?p=2")

    assert [f"project-{number} #1" in first for number in range(6)] == [False] * 4 + [True] * 2
    assert [f"project-{number} #1" in last for number in range(6)] == [False] * 2 + [True] * 2 + [False] * 2
    assert "the newest 4 that match" in first
    assert operator.get(f"{BUILDS}?p=3").status_code == 302
    assert str(builds[0].pk) in shown(operator, f"?q={builds[0].pk}")


def test_a_failed_build_s_page_shows_the_reason_first(operator: Client, ended_build: MakeBuild) -> None:
    build = ended_build("type_error", name="broken")
    retry_build(build, by=build.owner)

    page = operator.get(f"{BUILDS}{build.pk}/change/").content.decode()

    places = [
        page.index(text) for text in ("The type checker found type errors", "line 3 is wrong", "Attempt 1: failed")
    ]
    assert places == sorted(places)
    for text in ("type_error", "exit code 2", "host:1", "the end of it", "running → failed", "Retried as", "#2"):
        assert text in page
    assert "\x1b" not in page
    assert f'href="{BUILDS}operate/retry/?id={build.pk}"' in page
    assert "operate/cancel" not in page  # the build has ended
    assert f'href="/builds/{build.pk}"' in page


def test_a_running_build_s_page_shows_its_lease_and_operations(operator: Client, queue_build: QueueBuild) -> None:
    build = queue_build()
    claim("host:7")

    page = operator.get(f"{BUILDS}{build.pk}/change/").content.decode()

    assert "The lease of 15 s ends in" in page
    assert "operate/hand-back" in page
    Build.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=90))
    assert "ran out" in operator.get(f"{BUILDS}{build.pk}/change/").content.decode()


def test_a_queued_build_s_page_says_what_blocks_it(operator: Client, queue_build: QueueBuild) -> None:
    page = operator.get(f"{BUILDS}{queue_build().pk}/change/").content.decode()

    assert "no_workers" in page


def test_only_the_last_lines_of_a_log_are_shown(operator: Client, ended_build: MakeBuild) -> None:
    build = ended_build("type_error")
    lines = {"build": build, "attempt": 1, "phase": "build", "stream": "stdout", "timestamp": timezone.now()}
    LogChunk.objects.bulk_create(
        LogChunk(**lines, sequence=number, text=f"line {number}\n<script>x</script>\n") for number in range(3, 300)
    )

    page = operator.get(f"{BUILDS}{build.pk}/change/").content.decode()

    assert page.count("&lt;script&gt;x") == 100
    assert "line 299\n" in page
    assert "line 199\n" not in page
    assert "<script>x" not in page


def test_a_build_cannot_be_edited_on_its_page(staff_of: Callable[[str], Client], ended_build: MakeBuild) -> None:
    build = ended_build("type_error")
    client = staff_of("administrator")

    assert client.post(f"{BUILDS}{build.pk}/change/", {"status": "completed"}).status_code == 403
    assert client.get(f"{BUILDS}add/").status_code == 403
    assert client.post(f"{BUILDS}{build.pk}/delete/", {"post": "yes"}).status_code == 403
    assert client.get(f"{BUILDS}nonsense/change/").status_code == 404
    build.refresh_from_db()
    assert build.status == "failed"


@pytest.mark.parametrize("state", ["queued", "running", "failed", "completed"])
def test_pages_take_few_queries_for_any_number_of_rows(
    state: str,
    operator: Client,
    ended_build: MakeBuild,
    queue_build: QueueBuild,
    owner: User,
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    build = (
        ended_build("type_error" if state == "failed" else "") if state in ("failed", "completed") else queue_build()
    )
    if state == "running":
        claim("w")
    if state == "completed":
        default_storage.save(f"{build.pk}/1/0", ContentFile(b"<h1>hi</h1>"))
        for _ in range(3):
            publish_build(build, by=owner)
    BuildEvent.objects.bulk_create(BuildEvent(build=build, kind="phase", fence=1) for _ in range(50))
    for number in range(60):
        queue_build(name=f"more {number}")

    for path in (BUILDS, f"{BUILDS}?q=more", f"{BUILDS}{build.pk}/change/", f"{BUILDS}operate/retry/?id={build.pk}"):
        with django_assert_max_num_queries(12):
            answer: Any = operator.get(path)
        assert answer.status_code == 200
