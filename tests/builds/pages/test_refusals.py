"""Refusals of actions on pages: at the top of the next page, in a form, or as text."""

from collections.abc import Callable

import pytest
from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from builds.pages.refusals import refusals_as_text, refusals_in, refusals_shown
from builds.sites.publishing import InvalidSlugError
from chef.refusals import Reason, RefusalError
from chef.web.downloads import RangeNotSatisfiableError
from projects.files.limits import InvalidUploadError
from projects.files.paths import Fault


@pytest.fixture
def messages_shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(messages, "error", lambda request, text: found.append(text))
    return found


def refusing(refused: RefusalError) -> Callable[..., HttpResponse]:
    def view(request: HttpRequest) -> HttpResponse:
        raise refused

    return view


def test_a_page_s_refusal_is_shown_on_the_next_page(messages_shown: list[str]) -> None:
    upload = InvalidUploadError([Fault("invalid_path", "../a", "Remove the '..'."), Fault("no_files", "", "Send one.")])

    answer = refusals_shown()(refusing(upload))(RequestFactory().post("/somewhere"))

    assert (answer.status_code, answer["Location"]) == (302, "/somewhere")
    assert messages_shown == ["../a: Remove the '..'.", "Send one."]


def test_a_download_s_refusal_is_text_with_status_and_headers() -> None:
    answer = refusals_as_text(refusing(RangeNotSatisfiableError(7)))(RequestFactory().get("/log"))

    assert (answer.status_code, answer["Content-Range"], answer["Content-Type"]) == (416, "bytes */7", "text/plain")


def test_a_form_shows_a_refusal_at_the_named_field() -> None:
    class Form(forms.Form):
        slug = forms.CharField(required=False)
        prompt = forms.CharField(required=False)

    form = Form({})
    assert form.is_valid()
    with refusals_in(form):
        raise InvalidSlugError("No.")
    with refusals_in(form, "prompt"):
        raise RefusalError("Later.")
    with refusals_in(form):
        raise RefusalError("Never.", reasons=[Reason("conflict", "Never.", ("env", "A"), is_of_user=True)])

    assert form.errors == {"slug": ["No."], "prompt": ["Later."], "__all__": ["A: Never."]}
