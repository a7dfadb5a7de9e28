"""Every error in one shape: those that views raise, and on the API's paths those that no view answers."""

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
from rest_framework.exceptions import APIException, ParseError
from rest_framework.response import Response

from chef.storage.errors import StoreFault

R = TypeVar("R", bound=HttpResponseBase)


def error_response(status: int, kind: str, code: str, detail: str) -> JsonResponse:
    return JsonResponse({"type": kind, "errors": [{"code": code, "detail": detail, "attr": None}]}, status=status)


def _is_for_programs(request: HttpRequest) -> bool:
    return request.path.startswith(("/v1/", "/health"))


class StorageUnavailable(APIException):
    status_code = 503
    default_code = "storage_unavailable"
    default_detail = "The store of artifacts does not answer, or not as it should: come back later."
    wait = 10


class ApiExceptionHandler(ExceptionHandler):
    """The library's shape, with a next step in every text and the headers that go with a status."""

    def convert_known_exceptions(self, exc: Exception) -> Exception:
        if isinstance(exc, SuspiciousOperation):
            return ParseError("The request cannot be read: check its headers and its address.")
        if isinstance(exc, StoreFault):
            return StorageUnavailable()
        return super().convert_known_exceptions(exc)

    def convert_unhandled_exceptions(self, exc: Exception) -> APIException:
        if isinstance(exc, APIException):
            return exc
        return APIException("The server made a mistake; it has been written to its log. Try again.")

    def report_exception(self, exc: APIException, response: Response) -> None:
        if exc is not self.exc or exc.status_code == 500:  # 503s that we raise ourselves are no mistake of the server
            super().report_exception(exc, response)

    def get_headers(self, exc: APIException) -> dict[str, Any]:
        return {**super().get_headers(exc), **getattr(exc, "headers", {})}


class ApiExceptionFormatter(ExceptionFormatter):
    """The library's list of errors; a fault of a field as a whole has no part's name behind a dot."""

    def get_errors(self) -> list[Any]:
        errors = super().get_errors()
        return [replace(error, attr=error.attr.removesuffix(".")) if error.attr else error for error in errors]


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _is_for_programs(request):
        detail = "The request cannot be read: check its headers and its address."
        return error_response(400, "client_error", "bad_request", detail)
    too_many = isinstance(exception, TooManyFilesSent | TooManyFieldsSent)
    return render(request, "400.html", {"too_many": too_many, "limit": settings.MAX_FILES}, status=400)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _is_for_programs(request):
        return error_response(403, "client_error", "permission_denied", "You may not do this.")
    return render(request, "403.html", status=403)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A form without its token, or with one of another session; `reason` is for the log."""
    if _is_for_programs(request):
        return error_response(403, "client_error", "permission_denied", f"CSRF Failed: {reason}")
    context = {"no_cookie": reason == REASON_NO_CSRF_COOKIE, "no_referer": reason == REASON_NO_REFERER}
    return render(request, "403_csrf.html", context, status=403)


@csrf_exempt
def nothing_here(request: HttpRequest) -> HttpResponse:
    return error_response(404, "client_error", "not_found", "There is nothing at this path: see /v1/docs.")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _is_for_programs(request):
        return nothing_here(request)
    return reloading(request, defaults.page_not_found(request, exception))


def reloading(request: HttpRequest, response: R) -> R:
    """The response; where a part of a page has asked for it that looks again by itself, the whole page is to do so."""
    if request.headers.get("HX-Request") == "true":
        response.headers["HX-Refresh"] = "true"
    return response


def server_error(request: HttpRequest) -> HttpResponse:
    if _is_for_programs(request):
        detail = "The server made a mistake; it has been written to its log. Try again."
        return error_response(500, "server_error", "error", detail)
    return defaults.server_error(request)
