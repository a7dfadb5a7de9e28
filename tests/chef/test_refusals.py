"""Refusals of actions: their codes and statuses, and how the API answers with them."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.core import signals
from rest_framework.exceptions import ValidationError
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from builds.api.schema.error_codes import CODES
from builds.runtimes.runtime import UnknownRuntimeError
from builds.sites.publishing import InvalidSlugError, SlugTakenError
from chef.refusals import RefusalError
from chef.web.downloads import RangeNotSatisfiableError
from chef.web.errors import refusals_as_invalid
from chef.web.streaming import TooManyReadersError
from projects.environment import EnvironmentFault, InvalidEnvironmentError
from projects.files.limits import InvalidUploadError
from projects.files.paths import Fault

UPLOAD = InvalidUploadError(
    [Fault("invalid_path", "../a", "Remove the '..'."), Fault("too_many_files", "", "Leave some out.")]
)


def subclasses(kind: type[RefusalError]) -> Iterator[type[RefusalError]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def refused_by_api(refused: RefusalError) -> Any:
    class View(APIView):
        authentication_classes = ()
        permission_classes = ()

        def get(self, request: Any) -> None:
            raise refused

    return View.as_view()(APIRequestFactory().get("/v1/x")).render()


@pytest.fixture
def reported() -> Iterator[list[Any]]:
    """Errors reported as unhandled."""
    found: list[Any] = []

    def record(**kwargs: Any) -> None:
        found.append(kwargs)

    signals.got_request_exception.connect(record)
    yield found
    signals.got_request_exception.disconnect(record)


@pytest.mark.parametrize("kind", [RefusalError, *subclasses(RefusalError)], ids=lambda kind: kind.__name__)
def test_every_refusal_has_a_documented_code_and_status(kind: type[RefusalError]) -> None:
    assert kind.code in CODES or kind.__name__ == "DetectionError"  # its codes are those of verdicts
    assert 400 <= kind.status < 500 or kind.status == 503
    assert kind.__name__.endswith("Error") or kind.__module__.startswith("chef.jobs")


def test_the_api_answers_with_code_text_status_and_retry_after(reported: list[Any]) -> None:
    answer = refused_by_api(TooManyReadersError())

    assert (answer.status_code, answer["Retry-After"]) == (503, "10")
    assert answer.data["type"] == "server_error"
    assert answer.data["errors"] == [{"code": "too_many_readers", "detail": str(TooManyReadersError()), "attr": None}]
    assert not reported


def test_a_refusal_s_own_headers_are_sent() -> None:
    answer = refused_by_api(RangeNotSatisfiableError(7))

    assert (answer.status_code, answer["Content-Range"]) == (416, "bytes */7")
    assert "Retry-After" not in answer


@pytest.mark.parametrize(
    ("refused", "expected"),
    [
        (UPLOAD, [("invalid_path", "files.../a"), ("too_many_files", "files")]),
        (
            InvalidEnvironmentError(
                [EnvironmentFault("env", "A", "No."), EnvironmentFault("secrets", "", "Too many.")]
            ),
            [("invalid_environment", "secrets"), ("invalid_environment", "env.A")],
        ),
        (InvalidSlugError("No."), [("invalid_slug", "slug")]),
        (UnknownRuntimeError("unknown_version", "No."), [("unknown_version", "strategy.version")]),
    ],
)
def test_an_invalid_request_names_the_field(refused: RefusalError, expected: list[tuple[str, str]]) -> None:
    answer = refused_by_api(refused)

    assert (answer.status_code, answer.data["type"]) == (400, "validation_error")
    assert sorted((each["code"], each["attr"]) for each in answer.data["errors"]) == sorted(expected)


def test_a_conflict_names_no_field() -> None:
    answer = refused_by_api(SlugTakenError("todo"))

    assert answer.status_code == 409
    assert [(each["code"], each["attr"]) for each in answer.data["errors"]] == [("slug_taken", None)]


def test_nested_reasons_are_relative_to_their_field() -> None:
    with pytest.raises(ValidationError) as flat, refusals_as_invalid():
        raise InvalidSlugError("No.")
    with pytest.raises(ValidationError) as nested, refusals_as_invalid():
        raise UPLOAD

    assert flat.value.detail == ["No."]
    assert nested.value.detail == {"../a": ["Remove the '..'."], "": ["Leave some out."]}
