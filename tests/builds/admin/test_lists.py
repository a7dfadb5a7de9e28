"""The admin's lists and pages of other records than builds."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from builds.webhooks.endpoints import create_endpoint, create_for_installation
from builds.webhooks.outbox import send_test
from projects.generations.actions import GenerationOptions, request_generation
from projects.models import ApiToken
from projects.tokens import make_token, revoke_token
from tests.builds.admin.conftest import MakeBuild, operate

pytestmark = pytest.mark.once("postgresql")


def test_a_token_shows_its_expiry(operator: Client, owner: User) -> None:
    make_token(by=owner, name="a", scope="read", days=0)
    week = make_token(by=owner, name="b", scope="read", days=7)[0]
    expired = make_token(by=owner, name="c", scope="read", days=7)[0]
    yesterday = timezone.now() - timedelta(days=1)
    ApiToken.objects.filter(pk=expired.pk).update(created=yesterday - timedelta(days=7), expiry_date=yesterday)
    revoke_token(make_token(by=owner, name="d", scope="read", days=7)[0])

    page = operator.get("/admin/projects/apitoken/").content.decode()

    for text in ("always", f"{week.expiry_date:%Y-%m-%d}", ">expired<", ">revoked<"):
        assert text in page


def test_endpoints_and_deliveries_show_owner_and_state(operator: Client, owner: User) -> None:
    endpoint, _ = create_endpoint(by=owner, url="https://example.com/hook", events=["build.failed"], project=None)
    create_for_installation(url="https://example.com/all", events=["build.failed"])
    send_test(endpoint)

    endpoints = operator.get("/admin/builds/webhookendpoint/").content.decode()
    deliveries = operator.get("/admin/builds/delivery/").content.decode()

    assert "everyone" in endpoints
    assert "owner" in endpoints
    assert '<span class="chef-status pending">pending</span>' in deliveries
    assert "https://example.com/hook" in deliveries


def test_a_generation_s_page_shows_seconds_and_its_records_scroll_by_keyboard(operator: Client, owner: User) -> None:
    generation = request_generation(by=owner, prompt="an app", name="App", strategy={}, options=GenerationOptions())

    page = operator.get(f"/admin/projects/generation/{generation.pk}/change/").content.decode()
    listed = operator.get("/admin/projects/generation/").content.decode()

    assert f"{generation.created_at:%Y-%m-%d %H:%M:%S}" in page
    assert 'tabindex="0" role="group" aria-label="Exchanges"' in page
    assert "What it took" in page
    assert '<span class="chef-status queued">queued</span>' in listed


def test_log_entries_are_found_by_user_and_by_object(operator: Client, ended_build: MakeBuild) -> None:
    one, other = ended_build(), ended_build()
    operate(operator, "retry", one.pk)

    def found(term: str) -> bool:
        return "Retried as" in operator.get("/admin/admin/logentry/", {"q": term}).content.decode()

    assert found("operator")
    assert found(str(one.pk))
    assert not found(str(other.pk))
    assert not found("nobody")
