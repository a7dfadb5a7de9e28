"""The list of projects: whose are listed, the state of each, and the number of queries."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from builds.models import Build, Release, Site, SiteName
from chef.jobs.models import Status
from projects.generations.actions import GenerationOptions, request_generation
from projects.models import Project

pytestmark = pytest.mark.once

QueueBuild = Callable[..., Build]


def publish(build: Build, slug: str) -> None:
    release = Release.objects.create(project=build.project, number=1, build=build, single_page=False)
    name = SiteName.objects.create(slug=slug, owner=build.owner, project=build.project)
    Site.objects.create(project=build.project, name=name, live=release)


def test_the_list_shows_each_project_s_state_and_site(queue_build: QueueBuild, browser: Client) -> None:
    waiting, done = queue_build(name="waiting"), queue_build(name="done")
    Build.objects.filter(pk=done.pk).update(plan={"runtime": "node", "version": "22"})
    publish(done, "a-site")

    page = browser.get("/").content.decode()

    assert f'href="/projects/{waiting.project_id}"><bdi>waiting' in page
    assert f'href="/builds/{waiting.pk}"' in page
    assert 'aria-label="Build 1: Queued">Queued</a>' in page
    assert "2 queued" in page
    assert "node 22" in page
    assert "a-site.localhost" in page


def test_the_list_refreshes_only_while_something_is_active(queue_build: QueueBuild, browser: Client) -> None:
    build = queue_build()

    live = browser.get("/").content.decode()
    assert 'hx-trigger="every 3s"' in live
    assert '<noscript><meta http-equiv="refresh"' in live

    build.transition_to(Status.CANCELLED, verdict={"class": "cancelled", "code": "cancelled"})
    still = browser.get("/").content.decode()
    assert "hx-trigger" not in still
    assert "http-equiv" not in still


def test_a_project_with_an_active_generation_says_so(owner: User, browser: Client) -> None:
    request_generation(by=owner, prompt="A page about bees", strategy={}, options=GenerationOptions())

    assert "being written" in browser.get("/").content.decode()


def test_projects_are_found_by_a_part_of_their_name(queue_build: QueueBuild, browser: Client) -> None:
    queue_build(name="Weather map")
    queue_build(name="Todo")

    page = browser.get("/?q=weather").content.decode()
    assert "Weather map" in page
    assert "Todo" not in page
    assert "No project is called that" in browser.get("/?q=nothing%00").content.decode()


def test_many_projects_are_paged(owner: User, browser: Client) -> None:
    Project.objects.bulk_create(Project(owner=owner, name=f"number {n} of a kind") for n in range(60))

    seen: list[str] = []
    query: str | None = "?q=kind"
    while query:
        answer = browser.get(f"/{query}")
        seen += [row.project.name for row in answer.context["rows"]]
        query = answer.context["shown"].next
    assert len(seen) == len(set(seen)) == 60
    assert "q=kind" in browser.get("/?q=kind").context["shown"].next
    assert browser.get("/?cursor=nonsense").status_code == 404


def test_the_list_takes_few_queries_for_any_number_of_projects(
    queue_build: QueueBuild, browser: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(30):
        publish(queue_build(name=f"p{number}"), f"site-{number}")

    with django_assert_max_num_queries(8):
        browser.get("/")


def test_other_users_see_no_project_and_staff_see_the_owner(queue_build: QueueBuild, other: User) -> None:
    queue_build(name="private thing")
    stranger, staff = Client(), Client()
    stranger.force_login(other)
    staff.force_login(User.objects.create_superuser("root"))

    assert "private thing" not in stranger.get("/").content.decode()
    assert "Nothing here yet" in stranger.get("/").content.decode()
    seen = staff.get("/").content.decode()
    assert "private thing" in seen
    assert '<span class="tag">owner</span>' in seen
