"""Every page and operation of the admin, tried by each role."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.test import Client
from django.urls import reverse

from builds.models import (
    Build,
    Delivery,
    Preview,
    QueuePause,
    Release,
    Site,
    SiteName,
    WebhookEndpoint,
    WorkerHost,
)
from builds.webhooks.endpoints import create_endpoint, create_for_installation
from builds.webhooks.outbox import send_test
from projects.admin.operations import Operates
from projects.models import ApiToken, Exchange, Generation, Project
from tests.builds.admin.conftest import BUILDS, ROLES, MakeBuild, StaffOf, operate

pytestmark = pytest.mark.once("postgresql")

OPERATORS_OWN = {"operate_build", "operate_queue", "operate_generation", "operate_delivery"}


def operations() -> Iterator[tuple[Any, Any]]:
    for model_admin in admin.site._registry.values():
        if isinstance(model_admin, Operates):
            for operation in model_admin.operations:
                yield model_admin, operation


ALL = [(model_admin.opts.label_lower, operation.name) for model_admin, operation in operations()]


@pytest.fixture
def things(ended_build: MakeBuild, owner: User) -> dict[str, Any]:
    """One object of each model, by the model's label."""
    build = ended_build("type_error")
    project = build.project
    root = User.objects.create_superuser("root")
    kind = Generation.Kind.NEW
    generation = Generation.objects.create(project=project, owner=owner, kind=kind, prompt="x", max_tokens=1)
    release = Release.objects.create(project=project, number=1, build=build, single_page=False)
    name = SiteName.objects.create(slug="name", owner=owner, project=project)
    endpoint, _ = create_endpoint(by=owner, url="https://example.com", events=["build.failed"], project=None)
    create_for_installation(url="https://example.com/all", events=["build.failed"])
    made = [
        *(build, project, build.revision, generation, release, owner, root, endpoint, send_test(endpoint)),
        Site.objects.create(project=project, name=name, live=release),
        Preview.objects.create(build=build, token="t", expires_at=build.created_at, single_page=False),
        Exchange.objects.create(
            id=build.pk,
            generation=generation,
            stage="plan",
            attempt=1,
            model="m",
            messages=[],
            input_tokens=1,
            is_estimated=False,
        ),
        ApiToken.objects.create_key(name="t", owner=owner)[0],
        WorkerHost.objects.create(name="host", workers=1, seen_at=build.created_at),
        LogEntry.objects.create(user=root, action_flag=2, object_repr="x"),
        Group.objects.get(name="viewer"),
    ]
    return {thing._meta.label_lower: thing for thing in made}


def state() -> list[Any]:
    """Everything that an operation could change."""
    return [
        sorted(Build.objects.values_list("pk", "status", "pruned_at")),
        sorted(Generation.objects.values_list("pk", "status")),
        sorted(Delivery.objects.values_list("pk", "status", "next_try_at")),
        sorted(WebhookEndpoint.objects.values_list("pk", "disabled_reason")),
        list(ApiToken.objects.values_list("pk", "revoked")),
        list(Site.objects.values_list("pk", "live")),
        list(Project.objects.values_list("pk", "quarantine")),
        QueuePause.objects.count(),
        LogEntry.objects.count(),
    ]


def test_migrating_creates_a_group_for_each_role(db: None) -> None:
    def of(name: str) -> set[str]:
        return set(Group.objects.get(name=name).permissions.values_list("codename", flat=True))

    viewer, operator, administrator = map(of, ROLES)

    assert {codename.partition("_")[0] for codename in viewer} == {"view"}
    assert operator - viewer == OPERATORS_OWN
    assert operator < administrator
    assert {"delete_project", "change_apitoken", "change_user", "add_webhookendpoint"} <= administrator
    assert Permission.objects.filter(codename__in=OPERATORS_OWN).count() == 4


@pytest.mark.redis
@pytest.mark.parametrize("role", ROLES)
def test_each_role_sees_every_list_and_page(role: str, staff_of: StaffOf, things: dict[str, Any]) -> None:
    client = staff_of(role)
    seen = []

    for model, model_admin in admin.site._registry.items():
        label = model._meta.label_lower
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        for path in (reverse(f"{name}_changelist"), reverse(f"{name}_change", args=[things[label].pk])):
            answer = client.get(path)
            assert answer.status_code == 200, path
            assert b'style="' not in answer.content, path
        assert client.get(reverse(f"{name}_history", args=[things[label].pk])).status_code == 200
        seen.append(label)
        assert model_admin.has_view_permission(answer.wsgi_request)
    assert set(seen) == set(things)
    for path in ("/admin/", "/admin/operations/", "/admin/queue/", "/admin/queue/queues/0/", "/admin/queue/workers/0/"):
        assert client.get(path).status_code == 200, path


def test_no_page_shows_a_token_or_a_secret(staff_of: StaffOf, owner: User) -> None:
    token, value = ApiToken.objects.create_key(name="t", owner=owner)
    endpoint, secret = create_endpoint(by=owner, url="https://example.com", events=["build.failed"], project=None)
    client = staff_of("administrator")

    for path in (f"projects/apitoken/{token.pk}", f"builds/webhookendpoint/{endpoint.pk}"):
        page = client.get(f"/admin/{path}/change/").content.decode()
        assert value not in page
        assert token.hashed_key not in page
        assert secret not in page
        assert endpoint.sealed_secret not in page


@pytest.mark.parametrize(("label", "name"), ALL)
@pytest.mark.parametrize("role", ["nobody", "viewer"])
def test_a_viewer_cannot_operate(role: str, label: str, name: str, staff_of: StaffOf, things: dict[str, Any]) -> None:
    client, thing = staff_of(role), things[label]
    before = state()
    page = f"/admin/{label.replace('.', '/')}/"

    assert client.get(f"{page}operate/{name}/?id={thing.pk}").status_code == 403
    assert operate(client, name, thing.pk, page=page, reason="x").status_code == 403
    client.post(page, {"action": name, "_selected_action": [str(thing.pk)]})
    assert state() == before
    if role == "viewer":
        assert f"operate/{name}/" not in client.get(f"{page}{thing.pk}/change/").content.decode()


@pytest.mark.parametrize(("label", "name"), ALL)
def test_an_operator_operates_except_where_administrators_only_may(
    label: str, name: str, staff_of: StaffOf, things: dict[str, Any]
) -> None:
    page, query = f"/admin/{label.replace('.', '/')}/operate/{name}/", f"?id={things[label].pk}"
    is_administrators = (label, name) in {("projects.project", "delete"), ("projects.apitoken", "revoke")}

    assert staff_of("operator").get(page + query).status_code == (403 if is_administrators else 200)
    assert staff_of("administrator").get(page + query).status_code == 200


@pytest.mark.parametrize("role", ["nobody", "viewer", "operator"])
def test_only_administrators_change_users_tokens_endpoints_and_records(
    role: str, staff_of: StaffOf, things: dict[str, Any]
) -> None:
    client = staff_of(role)

    for model in admin.site._registry:
        label = model._meta.label_lower
        page = f"/admin/{label.replace('.', '/')}/"
        assert client.get(f"{page}add/").status_code == 403, label
        for action in ("change", "delete"):
            if label == "builds.build" or action == "delete" or role == "nobody":
                body = {"post": "yes", "url": "https://example.com/else", "username": "else", "name": "else"}
                assert client.post(f"{page}{things[label].pk}/{action}/", body).status_code == 403, label
    client.post(f"/admin/auth/user/{things['auth.user'].pk}/change/", {"is_superuser": "on", "username": "me"})
    assert not User.objects.filter(username="me").exists()


@pytest.mark.parametrize("role", ["nobody", "viewer"])
def test_only_queue_operators_pause_the_queue_or_use_rq(role: str, staff_of: StaffOf) -> None:
    client = staff_of(role)

    assert client.post("/admin/operations/pause/", {"do": "pause"}).status_code == 403
    assert client.post("/admin/queue/queues/0/empty/").status_code == 403
    assert client.post("/admin/queue/queues/0/requeue-all/").status_code == 403
    assert not QueuePause.objects.exists()
    assert "operations/pause" not in client.get("/admin/operations/").content.decode()
    if role == "nobody":
        for path in ("/admin/operations/", "/admin/queue/", BUILDS):
            assert client.get(path).status_code == 403


def test_anonymous_and_non_staff_users_are_sent_to_sign_in(owner: User, things: dict[str, Any]) -> None:
    user = Client()
    user.force_login(owner)

    for client in (Client(), user):
        for path in ("/admin/", "/admin/operations/", "/admin/queue/", BUILDS, f"{BUILDS}operate/retry/"):
            assert client.get(path)["Location"].startswith("/admin/login/"), path
        assert client.post("/admin/operations/pause/", {"do": "pause"}).status_code == 302
    assert not QueuePause.objects.exists()


def test_a_token_is_revoked_by_an_administrator(
    staff_of: StaffOf, owner: User, make_client: Callable[..., Any]
) -> None:
    client = make_client(owner)
    token = ApiToken.objects.get()
    assert client.get("/v1/builds").status_code == 200

    operate(staff_of("administrator"), "revoke", token.pk, page="/admin/projects/apitoken/")

    assert client.get("/v1/builds").status_code == 401
    shown = staff_of("viewer").get("/admin/admin/logentry/").content.decode()
    assert "Revoked: nothing is let in with it any more." in shown
    assert "administrator" in shown


def test_a_user_who_owns_projects_is_not_deleted(
    staff_of: StaffOf, queue_build: Callable[..., Build], other: User
) -> None:
    build = queue_build()
    client = staff_of("administrator")

    page = client.get(f"/admin/auth/user/{build.owner_id}/delete/").content.decode()
    client.post(f"/admin/auth/user/{build.owner_id}/delete/", {"post": "yes"})
    client.post(f"/admin/auth/user/{other.pk}/delete/", {"post": "yes"})

    assert "owner owns projects: delete these first" in page
    assert User.objects.filter(pk=build.owner_id).exists()
    assert not User.objects.filter(pk=other.pk).exists()
