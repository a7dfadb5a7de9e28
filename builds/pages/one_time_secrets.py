"""Secrets that are shown once: kept encrypted in the session from the POST that made them to the next page."""

from typing import Any

from django.http import HttpRequest, HttpResponse

from chef.storage.sealing import ANSWERS, UnsealError, seal, unseal

_KEY = "shown-once"


def show_once(request: HttpRequest, secret: str, *, about: Any) -> None:
    """Keep a secret for the next page that asks for `about`."""
    request.session[_KEY] = {"about": str(about), "sealed": seal(secret, ANSWERS)}


def shown_once(request: HttpRequest, *, about: Any) -> str:
    """The secret kept for `about`, which is then deleted; empty if there is none."""
    kept = request.session.get(_KEY)
    if not kept or kept["about"] != str(about):
        return ""
    del request.session[_KEY]
    try:
        return unseal(kept["sealed"], ANSWERS)
    except UnsealError:
        return ""


def no_store(response: HttpResponse) -> HttpResponse:
    response.headers["Cache-Control"] = "no-store"
    return response
