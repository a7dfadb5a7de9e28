"""A build's page: what it shows, to whom, and that a build's output is never executed."""

from collections.abc import Callable
from functools import partial
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from builds.actions import quarantine_project
from builds.api.documents.builds import QueueDocument
from builds.generations import build_generated
from builds.models import Artifact, Attempt, Build, BuildEvent, LogChunk, PhaseName, PhaseRun
from builds.pages.builds.build import BLOCKED
from builds.pruning import prune_build
from builds.queue import forecast
from builds.queue.claims import claim
from builds.queue.pause import pause_queue, resume_queue
from builds.sites.publishing import publish_build
from builds.verdicts.evidence import verdict
from chef.jobs.models import Status
from projects.actions import add_revision
from projects.files.paths import NewFile
from projects.generations.actions import GenerationOptions, request_generation
from projects.generations.queue import claim as claim_generation
from projects.generations.runner import Run
from projects.models import Exchange, Generation

pytestmark = pytest.mark.once

QueueBuild = Callable[..., Build]


def test_pages_ask_anonymous_users_to_sign_in(queue_build: QueueBuild) -> None:
    build = queue_build()

    for path in ("/", f"/builds/{build.pk}"):
        assert Client().get(path).headers["Location"] == f"/login?next={path}"
    assert "Sign in" in Client().get("/login").content.decode()


def test_another_user_s_build_is_404(queue_build: QueueBuild, other: User) -> None:
    build = queue_build()
    stranger = Client()
    stranger.force_login(other)

    assert stranger.get(f"/builds/{build.pk}").status_code == 404
    assert f"/builds/{build.pk}" not in stranger.get("/").content.decode()


def test_only_a_running_build_s_page_reloads_itself(queue_build: QueueBuild, browser: Client) -> None:
    build = queue_build()

    waiting = browser.get(f"/builds/{build.pk}").content.decode()
    lease = claim("w")
    assert lease
    PhaseRun.objects.create(attempt=lease.attempt, name="preparation")
    running = browser.get(f"/builds/{build.pk}").content.decode()
    lease.end(Status.COMPLETED)
    Artifact.objects.create(build=build, attempt=1, name="dist/a b.html", size=5, sha256="x", storage_key="k")
    ended = browser.get(f"/builds/{build.pk}").content.decode()

    assert 'http-equiv="refresh"' in waiting
    assert "Waiting for a worker" in waiting
    assert 'http-equiv="refresh"' in running
    assert 'http-equiv="refresh"' not in ended
    assert f"/v1/projects/{build.project_id}/artifacts/dist/a%20b.html" in ended
    assert build.project.name in browser.get("/").content.decode()


def test_a_build_s_output_stays_inert_and_its_verdict_is_shown(queue_build: QueueBuild, browser: Client) -> None:
    build = queue_build(name="<script>alert(0)</script>")
    lease = claim("w")
    assert lease
    LogChunk.objects.create(
        build=build,
        attempt=1,
        sequence=1,
        phase="build",
        stream="stderr",
        timestamp=timezone.now(),
        text="\x1b[31m<script>alert(1)</script>\x1b[0m\n",
    )
    why = verdict("type_error", phase="build", evidence=["<img src=x onerror=alert(2)>"], exit_code=2)
    lease.end(Status.FAILED, verdict=why.as_json())

    page = browser.get(f"/builds/{build.pk}").content.decode()

    assert "<script>" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\x1b" not in page
    assert "The type checker found type errors" in page
    assert "exit code 2" in page


def test_pages_need_few_queries_for_any_number_of_builds(
    queue_build: QueueBuild, browser: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    builds = [queue_build() for _ in range(15)]

    with django_assert_max_num_queries(12):
        browser.get("/")
    with django_assert_max_num_queries(12):
        browser.get(f"/builds/{builds[0].pk}")


@pytest.mark.redis
def test_the_admin_shows_builds_but_lets_nobody_change_them(queue_build: QueueBuild, db: None) -> None:
    build = queue_build()
    staff = Client()
    staff.force_login(User.objects.create_superuser("root"))

    assert str(build.pk) in staff.get("/admin/builds/build/").content.decode()
    page = staff.get(f"/admin/builds/build/{build.pk}/change/")
    assert page.status_code == 200
    assert 'name="_save"' not in page.content.decode()
    assert staff.get("/admin/queue/").status_code == 200


def test_a_page_shows_the_generation_of_a_build_and_its_repairs(owner: User, browser: Client) -> None:
    prompt, diff = "Build <b>a todo app</b>", "-<script>old</script>\n+new"
    root = request_generation(by=owner, prompt=prompt, strategy={}, options=GenerationOptions())
    lease = claim_generation("w")
    assert lease
    Run(lease, build_generated).execute()
    first = Build.objects.get()
    root.refresh_from_db()
    assert first.revision
    why = verdict("type_error", phase="build").as_json()
    Build.objects.filter(pk=first.pk).update(status="failed", finished_at=timezone.now(), verdict=why)
    repair = Build.objects.create(
        project=first.project, revision=first.revision, owner=owner, number=2, generation=root, repair_of=first
    )
    Generation.objects.filter(pk=root.pk).update(diff=diff, fix_ending="no_fewer_errors", best=first.revision)

    page = browser.get(f"/builds/{first.pk}").content.decode()
    child = browser.get(f"/builds/{repair.pk}").content.decode()

    assert "Build &lt;b&gt;a todo app&lt;/b&gt;" in page
    assert "Made from a starter, without a language model." in page
    assert f'Repaired by <a href="/builds/{repair.pk}">#2</a>' in page
    assert "did not reduce the errors, so repairs stopped. Revision 1 came furthest, and stays." in page
    assert "&lt;script&gt;old" in page
    assert f'A repair of <a href="/builds/{first.pk}">#1</a>' in child


@pytest.fixture
def staff(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("staff"))
    return client


def test_staff_read_every_exchange_of_a_generation(owner: User, staff: Client) -> None:
    generation = request_generation(by=owner, prompt="A page", strategy={}, options=GenerationOptions())
    prompt_messages = [{"role": "system", "content": "Plan <i>it</i>."}]
    exchange = Exchange.objects.create(
        id=uuid4(),
        generation=generation,
        stage="plan",
        attempt=1,
        model="m",
        messages=prompt_messages,
        answer='{"name": "<b>x</b>"}',
        input_tokens=1200,
        is_estimated=False,
    )

    listed = staff.get("/admin/projects/generation/").content.decode()
    page = staff.get(f"/admin/projects/generation/{generation.pk}/change/").content.decode()
    whole = staff.get(f"/admin/projects/exchange/{exchange.pk}/change/").content.decode()

    assert str(generation.pk) in listed
    assert f"/admin/projects/exchange/{exchange.pk}/change/" in page
    assert "Plan &lt;i&gt;it&lt;/i&gt;." in whole
    assert "&quot;name&quot;: &quot;&lt;b&gt;x&lt;/b&gt;&quot;" in whole
    assert "1,200 in, 0 out, as reported" in whole


def test_staff_cancel_and_retry_generations(owner: User, staff: Client) -> None:
    generation = request_generation(by=owner, prompt="A page", strategy={}, options=GenerationOptions())

    def act(name: str) -> str:
        body = {"id": [str(generation.pk)]}
        return staff.post(f"/admin/projects/generation/operate/{name}/", body, follow=True).content.decode()

    assert "Cancelled." in act("cancel")
    assert "It goes on as" in act("retry")
    assert Generation.objects.filter(retry_of=generation, status="queued").count() == 1
    assert "is in progress" in act("retry")


@pytest.mark.slow
def test_a_full_page_makes_few_queries_and_stays_small(
    owner: User, browser: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    generation = request_generation(by=owner, prompt="A shop", strategy={}, options=GenerationOptions())
    build = crowded(owner, generation)
    seeing = User.objects.create_user("support", is_staff=True)
    seeing.user_permissions.set(Permission.objects.filter(codename="view_build"))
    support = Client()
    support.force_login(seeing)

    for client in (browser, support):
        for suffix in ("", "/state", "/artifacts", "/artifacts/dist/1.js"):
            with django_assert_max_num_queries(12):
                answer = client.get(f"/builds/{build.pk}{suffix}", headers={"Accept-Encoding": "gzip"})
            assert answer.status_code == 200
            assert len(answer.content) < 60_000


@pytest.mark.slow
def test_pages_of_failed_and_waiting_builds_make_few_queries_too(
    owner: User, browser: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    generation = request_generation(by=owner, prompt="A shop", strategy={}, options=GenerationOptions())
    build = crowded(owner, generation)
    evidence = [f"line {number} of 20" for number in range(10)]
    why = verdict("type_error", phase="build", evidence=evidence).as_json()
    for status, reason in (("failed", why), ("running", None), ("queued", None)):
        ended = timezone.now() if status == "failed" else None
        lease = timezone.now() if status == "running" else None
        changes = {"verdict": reason, "finished_at": ended, "lease_expires_at": lease}
        Build.objects.filter(pk=build.pk).update(status=status, **changes)
        forecast.forget()

        with django_assert_max_num_queries(12):
            page = browser.get(f"/builds/{build.pk}").content.decode()

        assert page.count("data-line=") == (10 if status == "failed" else 0)


def crowded(owner: User, generation: Generation) -> Build:
    """A completed build with many attempts, phases, events, log entries, outputs, releases, repairs and retries."""
    revision = add_revision(generation.project, files=[NewFile("a", b"a")], dependencies={}, strategy={})
    new = partial(Build.objects.create, project=generation.project, revision=revision, owner=owner)
    build = new(
        number=1,
        generation=generation,
        fence=40,
        status="completed",
        started_at=timezone.now(),
        finished_at=timezone.now(),
        plan={"runtime": "node", "version": "22", "outputs": ["dist"], "reasons": ["x"] * 20},
        egress=[{"host": f"{number}.example", "port": 443, "allowed": True, "count": 3} for number in range(200)],
    )
    for number in range(2, 60):
        origin = {"repair_of": build, "generation": generation} if number % 2 else {"retry_of": build}
        new(number=number, **origin)
    now = timezone.now()
    for number in range(1, 41):
        attempt = Attempt.objects.create(build=build, number=number, worker="w", finished_at=now)
        for name in PhaseName:
            PhaseRun.objects.create(attempt=attempt, name=name, status="completed", finished_at=now)
    BuildEvent.objects.bulk_create(BuildEvent(build=build, kind="phase", fence=40) for _ in range(300))
    LogChunk.objects.bulk_create(
        LogChunk(build=build, attempt=40, sequence=number, phase="build", stream="stdout", timestamp=now, text=text)
        for number in range(1, 2000)
        for text in [f"line {number % 20} of 20\n"]
    )
    key = default_storage.save("crowded", ContentFile(b"let a = 1"))
    Artifact.objects.bulk_create(
        Artifact(build=build, attempt=40, name=f"dist/{number}.js", size=9, sha256="x", storage_key=key)
        for number in range(1000)
    )
    page = Artifact(build=build, attempt=40, name="dist/index.html", size=9, sha256="x", storage_key=key)
    page.save()
    for _ in range(30):
        publish_build(build, by=owner)
    return build


def test_a_timeline_shows_each_attempt_and_its_phases(queue_build: QueueBuild, browser: Client) -> None:
    build = queue_build()
    lease = claim("w")
    assert lease
    PhaseRun.objects.create(attempt=lease.attempt, name="preparation")
    lease.end(Status.QUEUED, outcome="worker_lost", phase="", progress=0)
    again = claim("w")
    assert again
    PhaseRun.objects.create(attempt=again.attempt, name="preparation")

    page = browser.get(f"/builds/{build.pk}").content.decode()

    assert 'Attempt 1 <span class="muted small">worker lost</span>' in page
    assert 'role="img" aria-label="Interrupted"' in page
    assert 'role="img" aria-label="Running"' in page
    assert "attempt 2 of 3" in page


def test_a_waiting_build_s_queue_position_is_shown(queue_build: QueueBuild, browser: Client) -> None:
    queue_build()
    second = queue_build()

    page = browser.get(f"/builds/{second.pk}/state").content.decode()

    assert "number 2 in the queue" in page
    assert "No worker is running: it starts when the operator starts one." in page
    assert 'id="details" class="columns even" hx-swap-oob="true"' in page
    assert "<html" not in page


def test_each_reason_to_wait_is_shown_in_words(queue_build: QueueBuild, owner: User, browser: Client) -> None:
    build = queue_build()
    pause_queue(by=owner)
    forecast.forget()

    paused = browser.get(f"/builds/{build.pk}").content.decode()
    resume_queue()
    quarantine_project(build.project, by=owner, reason="a miner")
    forecast.forget()
    held = browser.get(f"/builds/{build.pk}").content.decode()

    assert "The operator has paused the queue" in paused
    assert "The operator has put this project in quarantine" in held
    assert "a miner" not in held
    assert BLOCKED.keys() == set(QueueDocument().fields["blockedBy"].choices)  # type: ignore[attr-defined]


def test_a_pruned_build_says_what_was_removed(queue_build: QueueBuild, browser: Client) -> None:
    build = queue_build()
    lease = claim("w")
    assert lease
    lease.end(Status.COMPLETED)
    build.refresh_from_db()
    prune_build(build)

    page = browser.get(f"/builds/{build.pk}").content.decode()

    assert "The operator removed its log and its outputs" in page
    assert "The log was removed." in page
    assert "It cannot be published any more" in page
    assert "Nothing has been printed" not in page
