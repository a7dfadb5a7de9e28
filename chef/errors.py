"""Errors that no view answers, in the API's own shape for its paths: an unknown path, a fault of ours."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views import defaults


def error_response(status: int, kind: str, code: str, detail: str) -> JsonResponse:
    return JsonResponse({"type": kind, "errors": [{"code": code, "detail": detail, "attr": None}]}, status=status)


def _is_for_programs(request: HttpRequest) -> bool:
    return request.path.startswith(("/v1/", "/health"))


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _is_for_programs(request):
        return error_response(404, "client_error", "not_found", "There is nothing at this path.")
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    if _is_for_programs(request):
        detail = "The server made a mistake; it has been written to its log. Try again."
        return error_response(500, "server_error", "error", detail)
    return defaults.server_error(request)
