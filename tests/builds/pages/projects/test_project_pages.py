"""A project's overview, builds, releases and settings: what they show and do, and for whose projects."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import DjangoAssertNumQueries, Settings

from builds.actions import quarantine_project
from builds.models import Build, DeliveryTry, Release, Site, WebhookEndpoint
from builds.webhooks.endpoints import create_endpoint
from builds.webhooks.outbox import send_test
from chef.jobs.models import Status
from projects.generations.actions import GenerationOptions, cancel_generation, request_generation
from projects.models import EnvironmentVariable, Generation, Project
from tests.builds.pages.rows import completed, more_builds, path_of
from tests.scripted_model import ScriptedModel

pytestmark = pytest.mark.once

QueueBuild = Callable[..., Build]


# --- Overview and history ----------------------------------------------------------------------------------------


def test_the_overview_shows_the_latest_build_and_a_chart_of_durations(queue_build: QueueBuild, browser: Client) -> None:
    build = completed(queue_build(name="a shop"))
    more_builds(build, 12)

    answer = browser.get(path_of(build))
    page = answer.content.decode()

    assert "<h1><bdi>a shop</bdi></h1>" in page
    assert f'href="/builds/{answer.context["latest"].pk}">Build #13</a>' in page
    assert "npm run build" in page
    assert page.count("<rect") == 13
    assert "<title>#13: Completed, 13 s</title>" in page
    assert '<desc id="chart-desc">' in page
    assert page.count('data-label="Took"') == 10
    assert "All builds" in page
    heights = [bar.height for bar in answer.context["chart"].bars]
    assert max(heights) == heights[-1] == 80
    assert "hx-trigger" not in page


def test_the_overview_refreshes_while_a_build_is_active(queue_build: QueueBuild, browser: Client) -> None:
    page = browser.get(path_of(queue_build())).content.decode()

    assert 'hx-trigger="every 2s"' in page
    assert "waiting for a worker" in page


def test_the_overview_shows_why_a_build_failed(queue_build: QueueBuild, browser: Client) -> None:
    build = queue_build()
    verdict = {"class": "build", "code": "compile_error", "message": "It <b>broke</b>.", "hint": "Fix line 3."}
    build.transition_to(Status.CANCELLED, verdict=verdict)

    page = browser.get(path_of(build)).content.decode()

    assert "It &lt;b&gt;broke&lt;/b&gt;." in page
    assert "Fix line 3." in page


def test_a_project_without_a_build_shows_its_generation(owner: User, browser: Client) -> None:
    generation = request_generation(by=owner, prompt="A page of <i>bees</i>", strategy={}, options=GenerationOptions())
    path = f"/projects/{generation.project_id}"

    page = browser.get(path).content.decode()
    assert "waiting to be written" in page
    assert "A page of &lt;i&gt;bees&lt;/i&gt;" in page

    cancel_generation(generation, by=owner)
    assert (
        "Cancelled by owner" in browser.get(path).content.decode() or "cancelled" in browser.get(path).content.decode()
    )
    for part in ("/builds", "/releases", "/settings"):
        assert browser.get(path + part).status_code == 200


def test_build_again_builds_the_last_revision(queue_build: QueueBuild, browser: Client) -> None:
    build = queue_build()

    answer = browser.post(path_of(build), {"do": "build"})

    again = Build.objects.get(number=2)
    assert answer.headers["Location"] == f"/builds/{again.pk}"
    assert again.revision == build.revision


def test_a_full_queue_is_reported_at_the_top(queue_build: QueueBuild, browser: Client, settings: Settings) -> None:
    build = queue_build()
    settings.OWNER_MAX_QUEUED = 1

    page = browser.post(path_of(build), {"do": "build"}, follow=True).content.decode()

    assert '<li class="note error">You have 1 builds waiting' in page
    assert Build.objects.count() == 1


def test_a_prompt_changes_a_project(
    queue_build: QueueBuild, browser: Client, settings: Settings, model: ScriptedModel
) -> None:
    build = queue_build()
    settings.AI_PROVIDER = "starter"
    assert "has no language model" in browser.get(path_of(build)).content.decode()

    settings.AI_PROVIDER = "openai"
    answer = browser.post(path_of(build), {"do": "change", "prompt": "Make it\r\ngreen"})
    generation = Generation.objects.get()
    assert (generation.kind, generation.prompt) == ("edit", "Make it\ngreen")
    assert answer.status_code == 302

    again = browser.post(path_of(build), {"do": "change", "prompt": "and <b>round</b>"})
    assert again.status_code == 422
    assert "is in progress" in again.content.decode()
    assert "and &lt;b&gt;round&lt;/b&gt;" in again.content.decode()


def test_the_build_history_is_paged_and_filtered_by_status(queue_build: QueueBuild, browser: Client) -> None:
    build = queue_build()
    more_builds(build, 30)

    first = browser.get(path_of(build, "/builds"))
    second = browser.get(path_of(build, "/builds") + first.context["shown"].next)
    assert len(first.context["builds"]) == 25
    assert len(second.context["builds"]) == 6
    queued = browser.get(path_of(build, "/builds?status=queued"))
    assert [row.pk for row in queued.context["builds"]] == [build.pk]
    assert "No build of this project is failed" in browser.get(path_of(build, "/builds?status=failed")).content.decode()


# --- Releases ----------------------------------------------------------------------------------------------------


def test_a_build_is_published_rolled_back_and_taken_down(queue_build: QueueBuild, browser: Client) -> None:
    build = completed(queue_build())
    where = path_of(build, "/releases")

    for _ in range(2):
        page = browser.post(where, {"do": "publish", "slug": "bees"}, follow=True).content.decode()
    assert "Release 2 is live" in page
    assert "http://bees.localhost" in page
    assert "http://1--bees.localhost" in page

    browser.post(where, {"do": "activate", "number": "1"})
    site = Site.objects.get()
    assert site.live
    assert site.live.number == 1
    assert "The site is down" in browser.post(where, {"do": "down"}, follow=True).content.decode()
    assert Site.objects.get().live is None
    assert Release.objects.count() == 2
    for number in ("9", "x", ""):
        assert browser.post(where, {"do": "activate", "number": number}).status_code == 404


def test_publishing_says_why_it_is_refused(queue_build: QueueBuild, browser: Client) -> None:
    build = queue_build()
    where = path_of(build, "/releases")

    nothing = browser.post(where, {"do": "publish", "slug": ""})
    assert nothing.status_code == 422
    assert "has no completed build yet" in nothing.content.decode()
    completed(build)
    wrong = browser.post(where, {"do": "publish", "slug": "Not A Name"}).content.decode()
    assert "single hyphens between them" in wrong
    assert 'value="Not A Name"' in wrong
    assert not Release.objects.exists()


# --- Whose they are, and what they cost --------------------------------------------------------------------------


def test_other_users_pages_are_404_and_staff_may_only_read(queue_build: QueueBuild, other: User, owner: User) -> None:
    build = completed(queue_build())
    url = "https://example.com/hooks"
    endpoint, _ = create_endpoint(by=owner, url=url, events=["build.failed"], project=build.project)
    stranger, staff = Client(), Client()
    stranger.force_login(other)
    staff.force_login(User.objects.create_superuser("root"))
    pages = [path_of(build, page) for page in ("", "/builds", "/releases", "/settings")] + [
        f"/projects/{endpoint.project_id}/webhooks/{endpoint.pk}"
    ]

    for page in pages:
        assert stranger.get(page).status_code == 404
        assert staff.get(page).status_code == 200
        assert Client().get(page).headers["Location"] == f"/login?next={page}"
    browser = Client()
    browser.force_login(owner)
    browser.post(path_of(build, "/settings"), {"do": "set", "name": "MODE", "value": "only for me"})
    assert "only for me" in browser.get(path_of(build, "/settings")).content.decode()
    assert "only for me" not in staff.get(path_of(build, "/settings")).content.decode()
    dos = [
        (path_of(build), {"do": "build"}),
        (path_of(build), {"do": "change", "prompt": "x"}),
        (path_of(build, "/releases"), {"do": "publish"}),
        (path_of(build, "/releases"), {"do": "down"}),
        (path_of(build, "/settings"), {"do": "delete", "name": "project"}),
        (path_of(build, "/settings"), {"do": "set", "name": "A", "value": "x"}),
        (f"/projects/{endpoint.project_id}/webhooks/{endpoint.pk}", {"do": "delete"}),
    ]
    for client in (stranger, staff):
        assert {client.post(path, body).status_code for path, body in dos} == {404}
    assert (Project.objects.count(), Build.objects.count(), WebhookEndpoint.objects.count()) == (1, 1, 1)
    assert EnvironmentVariable.objects.get().name == "MODE"


def test_the_pages_take_few_queries_for_any_number_of_rows(
    queue_build: QueueBuild, browser: Client, owner: User, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    build = completed(queue_build())
    more_builds(build, 60)
    browser.post(path_of(build, "/releases"), {"do": "publish"})
    Release.objects.bulk_create(
        Release(project=build.project, number=number, build=build, single_page=False) for number in range(2, 40)
    )
    for number in range(30):
        url, events = f"https://example.com/{number}", ["build.failed"]
        endpoint, _ = create_endpoint(by=owner, url=url, events=events, project=build.project)
        browser.post(path_of(build, "/settings"), {"do": "set", "name": f"V{number}", "value": "x"})
    for _ in range(30):
        delivery = send_test(endpoint)
        DeliveryTry.objects.bulk_create(DeliveryTry(delivery=delivery, number=number) for number in range(5))

    pages = [path_of(build, page) for page in ("", "/builds", "/releases", "/settings")] + [
        f"/projects/{endpoint.project_id}/webhooks/{endpoint.pk}"
    ]
    for page in pages:
        with django_assert_max_num_queries(12):
            assert browser.get(page).status_code == 200


def test_a_name_with_markup_stays_text_everywhere(queue_build: QueueBuild, browser: Client) -> None:
    name = "</title><script>alert(1)</script>"
    build = completed(queue_build(name=name))
    browser.post(path_of(build, "/releases"), {"do": "publish"})

    for page in ("/", path_of(build), *(path_of(build, page) for page in ("/builds", "/releases", "/settings"))):
        assert "<script>alert" not in browser.get(page).content.decode()


def test_a_name_does_not_change_the_text_direction(queue_build: QueueBuild, browser: Client) -> None:
    build = completed(queue_build(name="shop\u202e\u200b"))

    for page in ("/", path_of(build), *(path_of(build, page) for page in ("/builds", "/code", "/settings"))):
        text = browser.get(page).content.decode()
        # The form field holds the name unchanged.
        assert "\u202e" not in text.replace('value="shop\u202e\u200b"', "")
        assert '<bdi>shop<span class="unseen">U+202E</span><span class="unseen">U+200B</span></bdi>' in text


def test_the_overview_shows_a_quarantine(queue_build: QueueBuild, owner: User, browser: Client) -> None:
    build = completed(queue_build())
    quarantine_project(build.project, by=owner, reason="a miner")

    page = browser.get(path_of(build)).content.decode()

    assert "The operator has put this project in quarantine" in page
    assert "a miner" not in page
