"""New files for an existing project: its next revision, built like the last one unless the user changes that."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from builds.actions import quarantine_project
from builds.models import Build
from projects.models import Project, Revision, Upload
from tests.builds.pages.rows import completed
from tests.builds.pages.sending import NODE, choices_of, folder

pytestmark = pytest.mark.once

QueueBuild = Callable[..., Build]


def send(client: Client, project: Project, files: dict[str, Any]) -> Any:
    """Send a folder; returns the page of the second step."""
    return client.get(folder(client, files, at=f"/projects/{project.pk}/files").headers["Location"])


def test_new_files_become_the_next_revision_and_are_built(queue_build: QueueBuild, browser: Client) -> None:
    before = completed(queue_build(name="shop"))

    step = send(browser, before.project, {f"shop/{path}": text for path, text in NODE.items()})
    page = step.content.decode()
    built = browser.post(step.request["PATH_INFO"], choices_of(step))

    build = Build.objects.latest("number")
    assert "What was detected" in page
    assert 'name="secrets"' not in page
    assert built.headers["Location"] == f"/builds/{build.pk}"
    assert (build.project_id, build.number, build.revision.number) == (before.project_id, 2, 2)
    assert set(build.revision.files.values_list("path", flat=True)) == set(NODE)
    assert Project.objects.count() == 1
    assert not Upload.objects.exists()


def test_the_last_revision_s_strategy_request_applies_to_the_next(queue_build: QueueBuild, browser: Client) -> None:
    request = {"runtime": "node", "version": "20", "buildCommand": "npm run build -- --fast"}
    project = queue_build(strategy=request).project

    step = send(browser, project, {f"shop/{path}": text for path, text in NODE.items()})
    chosen = choices_of(step)
    browser.post(step.request["PATH_INFO"], chosen)

    assert (chosen["runtime"], chosen["build_command"]) == ("node/20", "npm run build -- --fast")
    assert Revision.objects.latest("number").strategy == request


def test_pasted_files_become_a_revision(queue_build: QueueBuild, browser: Client) -> None:
    project = queue_build().project
    typed = {"way": "paste", "path": ["index.html"], "content": ["<h1>new</h1>"]}

    step = browser.get(browser.post(f"/projects/{project.pk}/files", typed).headers["Location"])
    browser.post(step.request["PATH_INFO"], choices_of(step))

    assert bytes(Revision.objects.latest("number").files.get().content) == b"<h1>new</h1>"


def test_invalid_files_are_reported_on_the_same_page(queue_build: QueueBuild, browser: Client) -> None:
    address = f"/projects/{queue_build(name='shop').project_id}/files"

    answers = [
        browser.post(address, {"way": "paste", "path": ["../up"], "content": ["x"]}),
        browser.post(address, {"way": "prompt", "prompt": "an app"}),
    ]

    assert [answer.status_code for answer in answers] == [422, 422]
    assert "The path leaves the project" in answers[0].content.decode()
    assert "New files · shop · Chef" in answers[1].content.decode()
    assert (Upload.objects.count(), Project.objects.count()) == (0, 1)


def test_files_of_a_quarantined_project_are_kept_but_not_built(
    queue_build: QueueBuild, owner: User, browser: Client
) -> None:
    project = queue_build().project
    step = send(browser, project, {"a/index.html": "x"})
    quarantine_project(project, by=owner, reason="a miner")

    answer = browser.post(step.request["PATH_INFO"], choices_of(step))

    assert answer.status_code == 422
    assert "in quarantine" in answer.content.decode()
    assert (Upload.objects.count(), Revision.objects.count()) == (1, 1)


def test_uploaded_files_can_be_discarded(queue_build: QueueBuild, browser: Client) -> None:
    project = queue_build().project
    step = send(browser, project, {"a/index.html": "x"})

    answer = browser.post(step.request["PATH_INFO"], {"do": "forget"})

    assert answer.headers["Location"] == f"/projects/{project.pk}"
    assert not Upload.objects.exists()


def test_files_for_another_user_s_project_are_404(queue_build: QueueBuild, other: User, admin_client: Client) -> None:
    address = f"/projects/{queue_build().project_id}/files"
    stranger = Client()
    stranger.force_login(other)

    for client in (stranger, admin_client):
        assert client.get(address).status_code == 404
        assert folder(client, {"a/index.html": "x"}, at=address).status_code == 404
    assert not Upload.objects.exists()


def test_both_steps_take_few_queries(
    queue_build: QueueBuild, browser: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    project = queue_build().project
    address = folder(browser, {f"a/{n}.html": "x" for n in range(300)}, at=f"/projects/{project.pk}/files").headers

    with django_assert_max_num_queries(6):
        assert browser.get(f"/projects/{project.pk}/files").status_code == 200
    with django_assert_max_num_queries(6):
        assert browser.get(address["Location"]).status_code == 200
