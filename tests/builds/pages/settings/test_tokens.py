"""API tokens: created, shown once, used, revoked; and the error pages."""

import io
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from chef.web import errors
from projects.models import ApiToken

pytestmark = pytest.mark.once


def answer_to(key: str) -> int:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {key}")
    return int(client.get("/v1/projects").status_code)


def test_a_token_is_shown_once_works_and_is_revoked(browser: Client, owner: User) -> None:
    made = browser.post("/tokens", {"do": "make", "name": "The <b>CI</b>", "scope": "read", "days": "30"})
    first = browser.get(made.headers["Location"])
    key = first.context["secret"]

    token = ApiToken.objects.get(owner=owner)
    assert key in first.content.decode()
    assert first.headers["Cache-Control"] == "no-store"
    assert key not in browser.get("/tokens").content.decode()
    assert "The &lt;b&gt;CI&lt;/b&gt;" in first.content.decode()
    assert token.scope == "read"
    assert token.expiry_date
    assert abs(token.expiry_date - timezone.now() - timedelta(days=30)) < timedelta(minutes=5)
    assert answer_to(key) == 200

    page = browser.post("/tokens", {"do": "revoke", "prefix": token.prefix}, follow=True).content.decode()
    assert "is revoked" in page
    assert answer_to(key) == 401


def test_a_token_is_encrypted_in_the_session(browser: Client) -> None:
    browser.post("/tokens", {"do": "make", "name": "x", "scope": "write", "days": "0"})

    kept = str(dict(browser.session))
    token = ApiToken.objects.get()
    assert token.prefix not in kept
    assert token.expiry_date is None


def test_a_token_needs_a_name_a_scope_and_a_lifetime(browser: Client) -> None:
    answer = browser.post("/tokens", {"do": "make", "name": "", "scope": "all", "days": "1"})

    assert answer.status_code == 422
    assert answer.content.decode().count("errorlist") == 3
    assert not ApiToken.objects.exists()


def test_other_users_tokens_are_hidden_and_cannot_be_revoked(browser: Client, other: User) -> None:
    token, _ = ApiToken.objects.create_key(name="not yours", owner=other)

    assert "not yours" not in browser.get("/tokens").content.decode()
    for prefix in (token.prefix, "", "a\0"):
        assert browser.post("/tokens", {"do": "revoke", "prefix": prefix}).status_code == 404
    assert not ApiToken.objects.get().revoked


def test_many_tokens_take_few_queries(
    browser: Client, owner: User, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(20):
        ApiToken.objects.create_key(name=f"t{number}", owner=owner)

    with django_assert_max_num_queries(6):
        browser.get("/tokens")


# --- What went wrong ---------------------------------------------------------------------------------------------


def test_errors_are_pages_for_people_and_json_for_programs(browser: Client, db: None) -> None:
    assert "There is nothing at this address" in browser.get("/nowhere").content.decode()
    strict = Client(enforce_csrf_checks=True)
    page = strict.post("/login", {})
    assert page.status_code == 403
    assert "sent no cookie" in page.content.decode()

    part = {"HX-Request": "true"}
    assert browser.get("/nowhere", headers=part).headers["HX-Refresh"] == "true"
    assert "HX-Refresh" not in browser.get("/nowhere").headers
    # An htmx request without a session makes the whole page go to the sign-in page.
    assert Client().get("/", headers=part, follow=True).headers["HX-Refresh"] == "true"

    many = [io.BytesIO(b"x") for _ in range(101)]
    refused = browser.post("/tokens", {"do": "make", "files": many})
    assert refused.status_code == 400
    assert "Too many files" in refused.content.decode()
    answer = browser.post("/v1/projects", {"archive": many})
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/json"

    for path in ("/v1/x", "/x"):
        request = page.wsgi_request
        request.path = path
        forbidden = errors.forbidden(request, Exception())
        failed = errors.csrf_failure(request, "wrong")
        assert forbidden.status_code == failed.status_code == 403
        is_json = forbidden.headers["Content-Type"] == failed.headers["Content-Type"] == "application/json"
        assert is_json == path.startswith("/v1/")
