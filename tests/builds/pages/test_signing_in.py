"""Signing in: one page for the whole site and the admin, with limited attempts."""

import uuid

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

pytestmark = pytest.mark.once


@pytest.fixture
def someone(db: None) -> User:
    return User.objects.create_user("someone", password="a long enough password")


def sign_in(client: Client, password: str, *, at: str = "/login") -> int:
    return client.post(at, {"username": "someone", "password": password}).status_code


@pytest.mark.redis
def test_sign_in_attempts_are_limited_by_address(someone: User, settings: Settings) -> None:
    settings.INSTALLATION, settings.RATE_ANONYMOUS = f"test-{uuid.uuid4().hex[:8]}", "2/minute"
    client = Client()

    assert [sign_in(client, guess) for guess in ("one", "two")] == [200, 200]
    answer = client.post("/login", {"username": "someone", "password": "a long enough password"})

    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert "Too many tries from your address" in answer.content.decode()
    assert "sessionid" not in client.cookies
    assert Client(REMOTE_ADDR="10.9.8.7").post("/login", {"username": "someone", "password": "x"}).status_code == 200


def test_the_admin_uses_the_same_sign_in_page(someone: User) -> None:
    client = Client()

    there = client.get("/admin/", follow=True)
    assert there.redirect_chain[-1][0] == "/login?next=/admin/"
    assert client.post("/admin/login/", {"username": "someone", "password": "x"}).status_code == 302
    assert sign_in(client, "a long enough password", at="/login?next=/admin/") == 302
    answer = client.get("/admin/", follow=True)

    assert answer.status_code == 403
    assert "Not allowed" in answer.content.decode()
