"""Releases through the API: published, numbered, switched, taken down; and previews."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.db import connection
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from builds import actions
from builds.models import Build, EncodedArtifact, Preview, Release, Site, SiteName
from builds.sites.publishing import SlugTakenError, forget_old_previews, publish_build

MakeBuild = Callable[..., Build]
PAGE = {"dist/index.html": "<h1>Hello</h1>"}


@pytest.fixture
def client(owner: User, make_client: Callable[..., APIClient]) -> APIClient:
    return make_client(owner, scope="publish")


def publish(client: APIClient, build: Build, *, status: int = 201, **body: Any) -> dict[str, Any]:
    answer = client.post(f"/v1/projects/{build.project_id}/publish", body)
    assert answer.status_code == status, answer.content
    return dict(answer.json())


def code(document: dict[str, Any]) -> tuple[str, str | None]:
    [error] = document["errors"]
    return error["code"], error["attr"]


@pytest.mark.usefixtures("each_store")
def test_a_release_is_numbered_and_live(client: APIClient, make_build: MakeBuild) -> None:
    build = make_build(PAGE, name="My Todo App!")

    first, second = publish(client, build), publish(client, build, jobId=str(build.pk))

    assert {**first, "releaseId": "", "createdAt": "", "links": {}} == {
        "projectId": str(build.project_id),
        "jobId": str(build.pk),
        "releaseId": "",
        "number": 1,
        "url": "http://my-todo-app.sites.test:3001",
        "permanentUrl": "http://1--my-todo-app.sites.test:3001",
        "live": True,
        "singlePage": False,
        "createdAt": "",
        "links": {},
        "warnings": [],
    }
    assert (second["number"], second["permanentUrl"]) == (2, "http://2--my-todo-app.sites.test:3001")
    listed = client.get(f"/v1/projects/{build.project_id}/releases").json()["results"]
    assert [(one["number"], one["live"]) for one in listed] == [(2, True), (1, False)]


def test_without_a_name_the_last_completed_build_is_published(client: APIClient, make_build: MakeBuild) -> None:
    first = make_build(PAGE)
    second = make_build(PAGE, of=first)
    actions.retry_build(second, by=second.owner)

    assert publish(client, first)["jobId"] == str(second.pk)


@pytest.mark.usefixtures("each_store")
def test_switching_releases_changes_one_column(client: APIClient, make_build: MakeBuild) -> None:
    build = make_build(PAGE)
    releases = [publish(client, build) for _ in range(2)]
    path = f"/v1/projects/{build.project_id}"

    for number in (1, 1, 2, 1):
        answer = client.post(f"{path}/releases/{number}/activate")
        assert (answer.status_code, answer.json()["live"], answer.json()["number"]) == (200, True, number)
        assert str(Site.objects.get().live_id) == releases[number - 1]["releaseId"]

    for _ in range(2):
        assert client.delete(f"{path}/publish").status_code == 204
        assert Site.objects.get().live is None
    assert [one["live"] for one in client.get(f"{path}/releases").json()["results"]] == [False, False]
    assert client.post(f"{path}/releases/2/activate").json()["live"] is True
    assert client.post(f"{path}/releases/3/activate").status_code == 404
    assert client.get(f"{path}/releases/{2**70}").status_code == 404


@pytest.mark.parametrize(
    ("files", "outputs", "root"),
    [
        ({"dist/index.html": "x", "dist/app/index.html": "x"}, ["dist"], "dist"),
        ({"a/x.txt": "x", "b/index.html": "x"}, ["a", "b"], "b"),
        ({"index.html": "x", "sub/index.html": "x"}, ["."], ""),
        ({"dist/app/browser/index.html": "x", "dist/app/browser/de/index.html": "x"}, ["dist"], "dist/app/browser"),
    ],
)
def test_the_site_is_the_folder_with_a_page(
    owner: User, make_build: MakeBuild, files: dict[str, str], outputs: list[str], root: str
) -> None:
    release, _ = publish_build(make_build(files, outputs=outputs), by=owner)

    assert release.root == root


def test_only_a_completed_build_with_a_page_is_published(
    client: APIClient, make_build: MakeBuild, queue_build: Callable[..., Build]
) -> None:
    wheel = make_build({"dist/app.whl": "x", "dist/noindex.html": "x"})
    queued = queue_build()

    assert code(publish(client, wheel, status=409)) == ("not_servable", None)
    assert code(publish(client, queued, status=409)) == ("not_servable", None)
    assert code(publish(client, queued, status=409, jobId=str(queued.pk))) == ("not_servable", None)
    assert publish(client, wheel, status=404, jobId=str(queued.pk))
    assert not Release.objects.exists()
    assert not SiteName.objects.exists()


# --- Names -------------------------------------------------------------------------------------------------------


def test_a_name_belongs_to_its_first_project(
    client: APIClient, other: User, make_build: MakeBuild, make_client: Callable[..., APIClient]
) -> None:
    mine, theirs = make_build(PAGE, name="shop"), make_build(PAGE, name="shop", by=other)

    assert publish(client, mine, slug="shop")["url"] == "http://shop.sites.test:3001"
    they = make_client(other, scope="publish")
    assert code(publish(they, theirs, status=409, slug="shop")) == ("slug_taken", None)
    assert publish(they, theirs)["url"] == f"http://shop-{theirs.project.pk.hex[:6]}.sites.test:3001"


def test_a_new_name_leaves_the_old_one_with_the_project(client: APIClient, make_build: MakeBuild) -> None:
    build, another = make_build(PAGE, name="one"), make_build(PAGE, name="two")
    publish(client, build)
    assert publish(client, build, slug="uno")["url"] == "http://uno.sites.test:3001"

    assert code(publish(client, another, status=409, slug="one")) == ("slug_taken", None)
    assert publish(client, build, slug="one")["url"] == "http://one.sites.test:3001"


@pytest.mark.parametrize(("slug", "why"), [("a--b", "invalid_slug"), ("www", "invalid_slug"), ("x" * 41, "max_length")])
def test_an_invalid_name_is_refused(client: APIClient, make_build: MakeBuild, slug: str, why: str) -> None:
    assert code(publish(client, make_build(PAGE), status=400, slug=slug)) == (why, "slug")
    assert not Release.objects.exists()


def test_a_long_name_ends_with_a_word(client: APIClient, make_build: MakeBuild) -> None:
    build = make_build(PAGE, name="Build a simple todo app with React")

    assert publish(client, build)["url"] == "http://build-a-simple-todo-app.sites.test:3001"


@pytest.mark.parametrize("name", ["www", "!!!", "_", "  a  b  ", "x" * 100, "Ünïcode"])
def test_every_project_gets_a_name(client: APIClient, make_build: MakeBuild, name: str) -> None:
    assert publish(client, make_build(PAGE, name=name))["number"] == 1


def test_a_deleted_project_s_name_stays_with_its_owner(
    client: APIClient, other: User, owner: User, make_build: MakeBuild
) -> None:
    gone = make_build(PAGE, name="shop")
    publish(client, gone)
    actions.delete_project(gone.project, by=owner)

    with pytest.raises(SlugTakenError):
        publish_build(make_build(PAGE, by=other), by=other, slug="shop")
    assert publish(client, make_build(PAGE), slug="shop")["url"] == "http://shop.sites.test:3001"


@pytest.mark.usefixtures("each_store")
@pytest.mark.django_db(transaction=True)
def test_twenty_concurrent_releases_get_twenty_numbers(owner: User, make_build: MakeBuild) -> None:
    build = make_build({**PAGE, "dist/app.js": "let a = 1;\n" * 200})

    def one(_: int) -> int:
        try:
            return publish_build(build, by=owner)[0].number
        finally:
            connection.close()

    with ThreadPoolExecutor(20) as pool:
        numbers = list(pool.map(one, range(20)))

    assert sorted(numbers) == list(range(1, 21))
    live = Site.objects.get().live
    assert live
    assert live.number == 20
    folder = f"{build.pk}/{build.fence}"
    kept = set(EncodedArtifact.objects.values_list("storage_key", flat=True))
    assert {f"{folder}/{name}" for name in default_storage.listdir(folder)[1]} == kept | set(
        build.artifacts.values_list("storage_key", flat=True)
    )


# --- Deleting ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("each_store")
@pytest.mark.django_db(transaction=True)
def test_deleting_a_project_removes_all_its_releases(client: APIClient, owner: User, make_build: MakeBuild) -> None:
    build = make_build({**PAGE, "dist/app.js": "let a = 1;\n" * 200})
    publish(client, build)
    assert client.post(f"/v1/builds/{build.pk}/preview").status_code == 201

    actions.delete_project(build.project, by=owner)

    for rows in (Release, Site, Preview, EncodedArtifact):
        assert not rows.objects.exists()
    assert default_storage.listdir(f"{build.pk}/1")[1] == []


# --- Previews ----------------------------------------------------------------------------------------------------


def test_a_preview_has_a_name_that_expires(client: APIClient, make_build: MakeBuild) -> None:
    build = make_build(PAGE)

    answers = [client.post(f"/v1/builds/{build.pk}/preview", body) for body in ({}, {"hours": 1})]

    assert [answer.status_code for answer in answers] == [201, 201]
    first, second = (answer.json() for answer in answers)
    assert set(first) == {"projectId", "jobId", "url", "expiresAt"}
    assert first["url"] != second["url"]
    assert first["url"].startswith("http://preview--")
    Preview.objects.filter(token__in=second["url"]).delete()
    Preview.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert forget_old_previews() == 2


@pytest.mark.parametrize("hours", [0, -1, 721, "1", 1.5])
def test_a_preview_s_time_is_bounded(client: APIClient, make_build: MakeBuild, hours: Any) -> None:
    answer = client.post(f"/v1/builds/{make_build(PAGE).pk}/preview", {"hours": hours})

    assert answer.status_code == 400
    assert code(answer.json())[1] == "hours"


# --- Permissions -------------------------------------------------------------------------------------------------


def test_publishing_needs_its_scope(owner: User, make_build: MakeBuild, make_client: Callable[..., APIClient]) -> None:
    build = make_build(PAGE)
    publish_build(build, by=owner)
    client = make_client(owner, scope="write")
    project = f"/v1/projects/{build.project_id}"

    for method, path in (
        ("post", f"{project}/publish"),
        ("delete", f"{project}/publish"),
        ("post", f"{project}/releases/1/activate"),
        ("post", f"/v1/builds/{build.pk}/preview"),
    ):
        answer = getattr(client, method)(path)
        assert (answer.status_code, code(answer.json())[0]) == (403, "insufficient_scope")
        assert "'publish'" in answer.json()["errors"][0]["detail"]
    assert client.get(f"{project}/releases").status_code == 200
    assert Release.objects.count() == 1


# --- Rules in output files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "single_page"),
    [
        ({"dist/index.html": "<script type=module src=/a.js></script>", "dist/a.js": "x"}, True),
        ({"dist/index.html": "<h1>Hi</h1>"}, False),
        ({"dist/index.html": "<script></script>", "dist/about.html": "x"}, False),
        ({"dist/index.html": "<script></script>", "dist/404.html": "x"}, False),
    ],
)
def test_single_page_apps_are_recognised(
    client: APIClient, make_build: MakeBuild, files: dict[str, str], single_page: bool
) -> None:
    build = make_build(files)

    assert publish(client, build)["singlePage"] is single_page
    assert publish(client, build, singlePage=not single_page)["singlePage"] is not single_page


@pytest.mark.usefixtures("each_store")
def test_invalid_rules_are_reported(client: APIClient, make_build: MakeBuild) -> None:
    build = make_build({**PAGE, "dist/_redirects": "/a /b 999\n", "dist/_headers": "/*\n  Set-Cookie: a=b\n"})

    warnings = publish(client, build)["warnings"]

    assert [warning.partition(":")[0] for warning in warnings] == ["_redirects, line 1", "_headers, line 2"]


# --- The page ----------------------------------------------------------------------------------------------------


def test_a_build_s_page_links_to_its_site(owner: User, make_build: MakeBuild) -> None:
    build = make_build(PAGE, name="shop")
    browser = Client()
    browser.force_login(owner)
    assert "sites.test" not in browser.get(f"/builds/{build.pk}").content.decode()

    publish_build(build, by=owner)
    publish_build(build, by=owner)

    page = browser.get(f"/builds/{build.pk}").content.decode()
    assert page.index('"http://shop.sites.test:3001"') < page.index('"http://1--shop.sites.test:3001"')
    assert "2--shop" not in page
