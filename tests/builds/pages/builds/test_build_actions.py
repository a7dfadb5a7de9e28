"""An owner's actions on the page of a build: who may do them, what they do, and how refusals are shown."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client
from pytest_django import Settings

from builds.models import Artifact, Build, Preview, Release
from builds.queue.claims import claim
from chef.jobs.models import Status

pytestmark = pytest.mark.once

QueueBuild = Callable[..., Build]


@pytest.fixture
def completed(queue_build: QueueBuild) -> Build:
    """A completed build with an HTML page and a script."""
    return complete(queue_build(name="Shop"), {"dist/index.html": "<h1>hi</h1>", "dist/a.js": "let a = 1"})


def complete(build: Build, files: dict[str, str]) -> Build:
    lease = claim("w")
    assert lease
    for name, text in files.items():
        key = default_storage.save(f"{build.pk}/1/{len(name)}", ContentFile(text.encode()))
        kind = "text/html" if name.endswith(".html") else "text/javascript"
        Artifact.objects.create(
            build=build, attempt=1, name=name, size=len(text), sha256="x", storage_key=key, content_type=kind
        )
    lease.end(Status.COMPLETED)
    build.refresh_from_db()
    return build


def post(client: Client, build: Build, verb: str, **fields: str) -> str:
    """POST an action; returns the page that it redirects to."""
    return client.post(f"/builds/{build.pk}/{verb}", fields, follow=True).content.decode()


def test_cancelling_ends_a_build_and_cancelling_again_says_so(queue_build: QueueBuild, browser: Client) -> None:
    build = queue_build()

    assert "Cancelled. What still runs is stopped" in post(browser, build, "cancel")
    assert "The build had already ended: it is cancelled." in post(browser, build, "cancel")
    build.refresh_from_db()
    assert build.status == Status.CANCELLED


def test_a_retry_redirects_to_the_new_build(completed: Build, browser: Client) -> None:
    page = post(browser, completed, "retry")
    again = Build.objects.get(retry_of=completed)

    assert "Queued as build #2, of the same files as #1." in page
    assert f'a retry of <a href="/builds/{completed.pk}">#1</a>' in page
    assert f'retried as <a href="/builds/{again.pk}">#2</a>' in browser.get(f"/builds/{completed.pk}").content.decode()


def test_a_refused_retry_shows_the_reason(
    queue_build: QueueBuild, completed: Build, browser: Client, settings: Settings
) -> None:
    settings.OWNER_MAX_QUEUED = 1
    waiting = queue_build()

    assert "builds waiting, the most one owner may have" in post(browser, completed, "retry")
    assert "The build is queued: wait for its end" in post(browser, waiting, "retry")
    assert Build.objects.count() == 2


def test_publishing_shows_the_live_address(completed: Build, browser: Client) -> None:
    before = browser.get(f"/builds/{completed.pk}").content.decode()
    after = post(browser, completed, "publish")

    assert f'action="/builds/{completed.pk}/publish"' in before
    assert "Release 1 is live." in after
    assert ">http://shop.localhost" in after
    assert "Publish again" in after
    assert Release.objects.get().build == completed


def test_a_build_without_a_page_cannot_be_published(queue_build: QueueBuild, browser: Client) -> None:
    build = complete(queue_build(), {"dist/a.js": "let a"})

    assert f'action="/builds/{build.pk}/publish"' not in browser.get(f"/builds/{build.pk}").content.decode()
    assert "there is no index.html in its output" in browser.get(f"/builds/{build.pk}").content.decode()
    assert "has no index.html: make the build write one" in post(browser, build, "publish")


def test_a_preview_is_made_only_on_request(completed: Build, browser: Client) -> None:
    address = f"/builds/{completed.pk}/artifacts/dist/index.html"

    assert "<iframe" not in browser.get(address).content.decode()
    assert not Preview.objects.exists()
    page = post(browser, completed, "preview", name="dist/index.html")
    preview = Preview.objects.get()

    assert f'src="http://preview--{preview.token}.localhost' in page
    assert '/index.html" title=' in page
    assert 'sandbox="allow-scripts allow-same-origin allow-forms"' in page


def test_another_user_s_preview_is_not_shown(completed: Build, browser: Client, other: User) -> None:
    post(browser, completed, "preview", name="dist/index.html")
    Preview.objects.update(created_by=other)

    for preview_id in (str(Preview.objects.get().pk), "x", ""):
        page = browser.get(f"/builds/{completed.pk}/artifacts/dist/index.html?preview={preview_id}").content.decode()
        assert "<iframe" not in page


def test_only_the_owner_may_act_not_even_staff(completed: Build, other: User) -> None:
    staff, stranger = Client(), Client()
    stranger.force_login(other)
    seeing = User.objects.create_user("support", is_staff=True)
    seeing.user_permissions.set(Permission.objects.filter(codename="view_build"))
    staff.force_login(seeing)

    for verb in ("cancel", "retry", "publish", "preview"):
        assert stranger.post(f"/builds/{completed.pk}/{verb}").status_code == 404
        assert staff.post(f"/builds/{completed.pk}/{verb}").status_code == 404
        assert Client().post(f"/builds/{completed.pk}/{verb}").headers["Location"].startswith("/login")
        assert staff.get(f"/builds/{completed.pk}/{verb}").status_code == 405
    page = staff.get(f"/builds/{completed.pk}").content.decode()
    assert f'/admin/builds/build/{completed.pk}/change/">the admin</a>' in page
    assert f'action="/builds/{completed.pk}' not in page
    assert "artifacts.zip" not in page  # where they would get a 404


def test_a_form_without_a_csrf_token_is_refused(completed: Build, owner: User) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(owner)

    assert strict.post(f"/builds/{completed.pk}/retry").status_code == 403
    assert Build.objects.count() == 1
