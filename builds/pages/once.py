"""Secrets that are shown once: kept sealed in the session from the POST that made one to the page that comes next."""

from typing import Any

from django.http import HttpRequest, HttpResponse

from chef.storage.sealing import ANSWERS, UnsealError, seal, unseal

_KEY = "shown-once"


def show_once(request: HttpRequest, secret: str, *, about: Any) -> None:
    """Have the next page that asks for `about` show a secret."""
    request.session[_KEY] = {"about": str(about), "sealed": seal(secret, ANSWERS)}


def shown_once(request: HttpRequest, *, about: Any) -> str:
    """The secret, which is then gone; empty when there is none about this."""
    kept = request.session.get(_KEY)
    if not kept or kept["about"] != str(about):
        return ""
    del request.session[_KEY]
    try:
        return unseal(kept["sealed"], ANSWERS)
    except UnsealError:
        return ""


def stored_nowhere(response: HttpResponse) -> HttpResponse:
    response.headers["Cache-Control"] = "no-store"
    return response
