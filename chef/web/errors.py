"""All errors in one format: those raised by views, and those on the API's paths that no view handles."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from django.conf import settings
from django.core.exceptions import SuspiciousOperation, TooManyFieldsSent, TooManyFilesSent
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import REASON_NO_CSRF_COOKIE, REASON_NO_REFERER
from django.shortcuts import render
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt
from drf_standardized_errors.formatter import ExceptionFormatter
from drf_standardized_errors.handler import ExceptionHandler
from rest_framework.exceptions import APIException, ErrorDetail, ParseError, ValidationError
from rest_framework.response import Response

from chef.refusals import Reason, RefusalError
from chef.storage.errors import StorageError

R = TypeVar("R", bound=HttpResponseBase)

MAX_NAME_CHARS = 240  # of a name quoted in an error


def error_response(status: int, kind: str, code: str, detail: str) -> JsonResponse:
    return JsonResponse({"type": kind, "errors": [{"code": code, "detail": detail, "attr": None}]}, status=status)


def _is_for_programs(request: HttpRequest) -> bool:
    return request.path.startswith(("/v1/", "/health"))


class StorageUnavailableError(RefusalError):
    code, status, retry_after = "storage_unavailable", 503, 10

    def __init__(self) -> None:
        super().__init__("The artifact store does not answer, or not as expected: try again later.")


class _ApiRefusalError(APIException):
    """A refusal with its own status and headers."""

    def __init__(self, refused: RefusalError) -> None:
        super().__init__(str(refused), code=refused.code)
        self.status_code, self.headers = refused.status, refused.headers


def as_api_exception(refused: RefusalError) -> APIException:
    """The API's error for a refusal: per field when the request is invalid, else a single error."""
    if refused.status == 400:
        return ValidationError(_by_name([(reason, reason.attr) for reason in refused.reasons]))
    return _ApiRefusalError(refused)


@contextmanager
def refusals_as_invalid() -> Iterator[None]:
    """For a serializer or field: turns a refusal raised inside into its ValidationError, with nested names."""
    try:
        yield
    except RefusalError as refused:
        raise ValidationError(field_errors(refused)) from refused


def field_errors(refused: RefusalError) -> Any:
    """The reasons as errors of one field, without its own name: a list, or lists by nested name."""
    return _by_name([(reason, reason.attr[1:]) for reason in refused.reasons])


def _by_name(reasons: Sequence[tuple[Reason, Sequence[str]]]) -> Any:
    """Nest errors as DRF does. An error about a whole field, next to errors of its parts, gets the empty name."""
    if not any(attr for _, attr in reasons):
        return [ErrorDetail(reason.detail, code=reason.code) for reason, _ in reasons]
    found: dict[str, list[tuple[Reason, Sequence[str]]]] = {}
    for reason, attr in reasons:
        found.setdefault(attr[0][:MAX_NAME_CHARS] if attr else "", []).append((reason, attr[1:]))
    return {name: _by_name(below) for name, below in found.items()}


class ApiExceptionHandler(ExceptionHandler):
    """The library's error format, with a next step in every text and the status's headers."""

    def convert_known_exceptions(self, exc: Exception) -> Exception:
        if isinstance(exc, RefusalError):
            return as_api_exception(exc)
        if isinstance(exc, SuspiciousOperation):
            return ParseError("The request cannot be parsed: check its headers and its URL.")
        if isinstance(exc, StorageError):
            return as_api_exception(StorageUnavailableError())
        return super().convert_known_exceptions(exc)

    def convert_unhandled_exceptions(self, exc: Exception) -> APIException:
        if isinstance(exc, APIException):
            return exc
        return APIException("Internal error; the server has logged it. Try again.")

    def report_exception(self, exc: APIException, response: Response) -> None:
        is_ours = isinstance(self.exc, APIException | RefusalError)
        if not is_ours or exc.status_code == 500:  # our own 503s are not server errors to report
            super().report_exception(exc, response)

    def get_headers(self, exc: APIException) -> dict[str, Any]:
        return {**super().get_headers(exc), **getattr(exc, "headers", {})}


class ApiExceptionFormatter(ExceptionFormatter):
    """The library's list of errors, without the dot that an error about a whole field would end in."""

    def get_errors(self) -> list[Any]:
        errors = super().get_errors()
        return [replace(error, attr=error.attr.removesuffix(".")) if error.attr else error for error in errors]


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _is_for_programs(request):
        detail = "The request cannot be parsed: check its headers and its URL."
        return error_response(400, "client_error", "bad_request", detail)
    too_many = isinstance(exception, TooManyFilesSent | TooManyFieldsSent)
    return render(request, "400.html", {"too_many": too_many, "limit": settings.MAX_FILES}, status=400)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _is_for_programs(request):
        return error_response(403, "client_error", "permission_denied", "You may not do this.")
    return render(request, "403.html", status=403)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A form without its CSRF token, or with another session's; `reason` is for the log."""
    if _is_for_programs(request):
        return error_response(403, "client_error", "permission_denied", f"CSRF Failed: {reason}")
    context = {"no_cookie": reason == REASON_NO_CSRF_COOKIE, "no_referer": reason == REASON_NO_REFERER}
    return render(request, "403_csrf.html", context, status=403)


@csrf_exempt
def nothing_here(request: HttpRequest) -> HttpResponse:
    return error_response(404, "client_error", "not_found", "Nothing exists at this path: see /v1/docs.")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _is_for_programs(request):
        return nothing_here(request)
    return reloading(request, defaults.page_not_found(request, exception))


def reloading(request: HttpRequest, response: R) -> R:
    """The response. If a polling part of a page requested it, the whole page reloads instead."""
    if request.headers.get("HX-Request") == "true":
        response.headers["HX-Refresh"] = "true"
    return response


def server_error(request: HttpRequest) -> HttpResponse:
    if _is_for_programs(request):
        detail = "Internal error; the server has logged it. Try again."
        return error_response(500, "server_error", "error", detail)
    return defaults.server_error(request)
