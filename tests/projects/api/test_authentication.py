"""Authentication: the local user where anonymous access is allowed, and sessions with a CSRF token."""

import os
import subprocess
import sys
from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.authentication import SessionAuthentication
from rest_framework.response import Response
from rest_framework.test import APIClient, APIRequestFactory
from rest_framework.views import APIView

from projects.api.authentication import LocalUserAuthentication, TokenAuthentication
from projects.models import Project
from tests.installation import ROOT


class View(APIView):
    authentication_classes = (TokenAuthentication, SessionAuthentication, LocalUserAuthentication)

    def get(self, request: Any) -> Any:
        return Response({"user": request.user.get_username()})


def get(**headers: str) -> Any:
    return View.as_view()(APIRequestFactory().get("/v1/x", headers=headers))


@pytest.mark.django_db
def test_anonymous_requests_act_as_a_local_user_who_cannot_sign_in() -> None:
    answers = [get(), get()]

    assert [answer.data for answer in answers] == [{"user": "local"}] * 2
    assert not User.objects.get().has_usable_password()


@pytest.mark.django_db
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_requests_from_other_sites_are_not_authenticated(site: str) -> None:
    assert get(**{"Sec-Fetch-Site": site}).status_code == 401
    assert not User.objects.exists()


@pytest.mark.django_db
def test_an_invalid_token_does_not_fall_back_to_the_local_user() -> None:
    assert get(Authorization="Bearer a.b").status_code == 401


@pytest.mark.slow
@pytest.mark.parametrize(("debug", "code"), [("0", 1), ("1", 0)])
def test_anonymous_access_requires_debug(debug: str, code: int) -> None:
    environment = {**os.environ, "CHEF_ALLOW_ANONYMOUS": "1", "DEBUG": debug, "CHEF_HTTPS": "0"}

    started = subprocess.run(
        [sys.executable, "manage.py", "check"], cwd=ROOT, env=environment, capture_output=True, text=True
    )

    assert started.returncode == code, started.stderr
    assert code == 0 or "CHEF_ALLOW_ANONYMOUS=1 lets anyone in" in started.stderr


def test_a_session_needs_its_csrf_token_to_write(owner: User) -> None:
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(owner)
    body = {"files": {"index.html": "<h1>hi</h1>"}}

    refused = client.post("/v1/projects", body)
    token = client.get("/").context["csrf_token"]
    accepted = client.post("/v1/projects", body, headers={"X-CSRFToken": str(token)})

    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (403, "permission_denied")
    assert accepted.status_code == 201
    assert Project.objects.count() == 1
