"""A generation's page: its steps while it runs, its result, and the repairs of its failed builds."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from pytest_django import DjangoAssertNumQueries, Settings

from builds.actions import queue_build
from builds.generations import build_generated
from builds.models import Build
from builds.pages.generation import STAGES
from builds.queue.claims import claim as claim_build
from builds.verdicts.evidence import verdict
from chef.jobs.leases import Lease
from chef.jobs.models import Status
from projects.actions import add_revision
from projects.engine.errors import EngineError
from projects.engine.model.questions import Stage
from projects.files.paths import NewFile
from projects.generations.actions import FailedBuild, GenerationOptions, request_generation, request_repair
from projects.generations.queue import claim
from projects.generations.runner import STARTER, Run
from projects.models import Exchange, Generation, GenerationEvent, Revision
from tests.projects.engine.apps import INTENT, plan, planned

pytestmark = pytest.mark.once

PROMPT = "Build a todo app with <b>React</b>"


@pytest.fixture
def ask(owner: User, settings: Settings) -> Callable[..., Generation]:
    settings.AI_PROVIDER = "openai"

    def ask(prompt: str = PROMPT, **options: Any) -> Generation:
        return request_generation(by=owner, prompt=prompt, strategy={}, options=GenerationOptions(**options))

    return ask


def begun(*stages: str, **columns: Any) -> Lease[Generation]:
    """Claim the next generation and set what the engine has recorded so far."""
    lease = claim("w")
    assert lease
    for stage in stages:
        lease.job.events.create(kind=GenerationEvent.Kind.STAGE, data={"stage": stage})
    Generation.objects.filter(pk=lease.job.pk).update(stage=stages[-1], provider="openai", model="m-1", **columns)
    return lease


def completed(lease: Lease[Generation], files: dict[str, bytes], **columns: Any) -> Revision:
    generation = lease.job
    origin = Revision.Origin.REPAIR if generation.root_id else Revision.Origin.GENERATION
    new = [NewFile(path, content) for path, content in files.items()]
    revision = add_revision(generation.project, files=new, dependencies={}, strategy={}, origin=origin)
    lease.end(Status.COMPLETED, revision=revision, **columns)
    build_generated(generation, revision)
    return revision


def failing(code: str, evidence: str) -> Build:
    lease = claim_build("w")
    assert lease
    why = verdict(code, phase="build", evidence=[evidence], exit_code=2)
    lease.end(Status.FAILED, verdict=why.as_json())
    return lease.job


def page_of(browser: Client, generation: Generation, query: str = "") -> str:
    return browser.get(f"/generations/{generation.pk}{query}").content.decode()


def test_every_stage_has_a_name() -> None:
    assert set(STAGES) == {*Stage, STARTER}


def test_another_user_s_generation_is_404_and_cannot_be_cancelled(
    ask: Callable[..., Generation], other: User, db: None
) -> None:
    generation = ask()
    stranger, staff = Client(), Client()
    stranger.force_login(other)
    staff.force_login(User.objects.create_superuser("staff"))

    assert stranger.get(f"/generations/{generation.pk}").status_code == 404
    assert 'action="' not in page_of(staff, generation).partition('id="generation"')[2]
    for client in (stranger, staff):
        for verb in ("cancel", "retry"):
            assert client.post(f"/generations/{generation.pk}/{verb}").status_code == 404
    generation.refresh_from_db()
    assert generation.status == "queued"


def test_a_running_generation_shows_progress_and_refreshes(ask: Callable[..., Generation], browser: Client) -> None:
    generation = ask()
    waiting = page_of(browser, generation)
    state = {
        "intent": INTENT,
        "plan": plan(planned("a.js"), planned("<i>b</i>.js"), planned("c.js")),
        "left_out": {"c.js": "It could not be written."},
    }
    begun("intent", "plan", "code", state=state, input_tokens=1200, output_tokens=300, cost="0.0123")
    generation.drafts.create(path="a.js", content="x", size=1)
    Exchange.objects.create(
        id=uuid4(),
        generation=generation,
        stage="plan",
        attempt=1,
        model="m",
        messages=[{"role": "system", "content": "The words of the engine"}],
        input_tokens=9,
        is_estimated=True,
    )

    page, part = page_of(browser, generation), page_of(browser, generation, "?part=1")

    assert "It waits for its turn" in waiting
    assert '<noscript><meta http-equiv="refresh" content="3"></noscript>' in page
    assert "Build a todo app with &lt;b&gt;React" in page
    assert "<html" not in part
    for text in (page, part):
        last = generation.events.last()
        assert last
        assert f'data-events="/v1/generations/{generation.pk}/events?after={last.pk}"' in text
        assert 'data-says="Running, Write files, 1 file"' in text
        assert '<li class="running" aria-current="step">' in text
        assert text.count('<li class="done">') == 3  # wait, intent, plan
        assert "1 of 2" in text
        assert "&lt;i&gt;b&lt;/i&gt;.js" in text
        assert "to come" in text
        assert "It could not be written." in text
        assert "A list of things to do." in text
        assert "Items stay in the browser." in text
        assert "1,500 of 200,000" in text
        assert "0.0123" in text
        assert "in part: the model" in text
        assert "The words of the engine" not in text


def test_a_starter_generation_links_to_its_files_and_build(owner: User, browser: Client) -> None:
    generation = request_generation(
        by=owner, prompt="Build a todo app with React", strategy={}, options=GenerationOptions()
    )
    lease = claim("w")
    assert lease
    Run(lease, build_generated).execute()
    build = Build.objects.get()

    page = page_of(browser, generation)

    assert "Choose a starter" in page
    assert f'href="/builds/{build.pk}">Build #1' in page
    assert f'href="/projects/{generation.project_id}/code/1/package.json"' in page
    assert "none: it is made from a starter" in page
    assert "data-waits" in page
    assert "data-events" not in page


def test_cancelling_and_retrying(ask: Callable[..., Generation], browser: Client) -> None:
    generation = ask()

    cancelled = browser.post(f"/generations/{generation.pk}/cancel", follow=True).content.decode()
    again = browser.post(f"/generations/{generation.pk}/cancel", follow=True).content.decode()
    retried = browser.post(f"/generations/{generation.pk}/retry", follow=True)
    refused = browser.post(f"/generations/{generation.pk}/retry", follow=True).content.decode()

    assert "The generation is cancelled: it asks the model for nothing more." in cancelled
    assert "Cancelled by owner." in cancelled
    assert "had ended before" in again
    new = Generation.objects.get(retry_of=generation)
    assert retried.redirect_chain == [(f"/generations/{new.pk}", 302)]
    assert "one that was cancelled" in retried.content.decode()
    assert "is in progress" in refused
    assert f'It has been retried: <a href="/generations/{new.pk}">' in page_of(browser, generation)
    assert browser.get(f"/generations/{generation.pk}/cancel").status_code == 405


def test_a_failed_generation_says_what_to_do(ask: Callable[..., Generation], browser: Client) -> None:
    generation = ask(analysis=False, tests=False)
    lease = begun("plan", "code")
    error = EngineError("file_failed", "<script>x</script>", subject="src/a.js")
    lease.end(Status.FAILED, error=error.as_json())

    page = page_of(browser, generation)

    assert "A file that the app needs could not be written." in page
    assert "&lt;script&gt;x&lt;/script&gt;" in page
    assert "Retry the generation: it continues where it stopped." in page
    assert f'action="/generations/{generation.pk}/retry"' in page
    assert '<li class="failed">' in page
    assert "data-waits" not in page
    assert "http-equiv" not in page


@pytest.fixture
def repaired(ask: Callable[..., Generation], owner: User) -> Generation:
    """A generation whose build failed, and whose two repairs did not fix it."""
    root = ask()
    first = completed(begun("intent", "plan", "code", "tests"), {"a.ts": b"one"}, message="An app.")
    revision = first
    for number in (1, 2):
        build = failing("type_error", f"src/a.ts({number},1): <b>error</b>")
        assert build.verdict
        request_repair(root, revision, FailedBuild(build.verdict, "log"))
        columns = {"message": f"Try {number}.", "diff": "--- a/a.ts\n+++ b/a.ts\n@@ -1 +1 @@\n--- one\n+<u>two</u>\n"}
        revision = completed(begun("repair", input_tokens=500), {"a.ts": b"two %d" % number}, **columns)
    failing("type_error", "src/a.ts(3,1): error")
    Generation.objects.filter(pk=root.pk).update(fix_ending="no_fewer_errors", best=first)
    root.refresh_from_db()
    return root


def test_repairs_are_shown_side_by_side(repaired: Generation, browser: Client) -> None:
    repairs = list(repaired.repairs.order_by("created_at"))
    builds = list(Build.objects.order_by("number"))
    project = repaired.project_id

    page = page_of(browser, repaired)
    of_repair = page_of(browser, repairs[1])

    assert "2 repairs" in page
    assert "did not reduce the errors, so repairs stopped. Revision 1 came furthest, and stays." in page
    assert page.count("came furthest</span>") == 1
    for number, repair in enumerate(repairs, 1):
        assert f'<a href="/generations/{repair.pk}">Repair {number}</a>' in page
        assert f"Try {number}." in page
        assert f'href="/projects/{project}/diff/{number}/{number + 1}"' in page
    for build in builds:
        assert f'href="/builds/{build.pk}">Build #{build.number}</a>' in page
    assert "&lt;b&gt;error" in page
    assert "500 tokens" in page
    assert "data-waits" not in page
    assert f'A repair of <a href="/generations/{repaired.pk}">' in of_repair
    assert '<tr class="added"><td class="txt">+&lt;u&gt;two&lt;/u&gt;</td></tr>' in of_repair
    assert '<tr class="removed"><td class="txt">--- one</td></tr>' in of_repair
    assert '<tr class="head"><td class="txt">--- a/a.ts</td></tr>' in of_repair
    assert "What had failed" in of_repair
    assert "The type checker found type errors" in of_repair


def test_a_large_generation_takes_few_queries(
    repaired: Generation, browser: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    assert repaired.revision
    for number in range(30):
        repaired.events.create(kind=GenerationEvent.Kind.FILE, data={"path": f"{number}", "size": 1})
        queue_build(repaired.revision, by=repaired.owner)
    user = User.objects.create_user("staff", is_staff=True)
    staff = Client()
    staff.force_login(user)
    assert staff.get(f"/generations/{repaired.pk}").status_code == 404
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_generation", "view_project"]))

    paths = (
        f"generations/{repaired.pk}",
        f"projects/{repaired.project_id}/code",
        f"projects/{repaired.project_id}/diff/1/3",
    )
    for client in (browser, staff):
        for path in paths:
            with django_assert_max_num_queries(12):
                assert client.get(f"/{path}").status_code == 200
