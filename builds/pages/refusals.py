"""How pages show refusals of actions: at the top of the next page, or in the form that was sent."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect

from chef.refusals import RefusalError

View = Callable[..., HttpResponseBase]


def refusals_shown(page: str = "") -> Callable[[View], View]:
    """Decorator: a view's refusal becomes a message and a redirect.

    `page`: the name of the URL to redirect to, with the view's arguments; by default the request's own path.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            try:
                return view(request, *args, **kwargs)
            except RefusalError as refused:
                show_refusal(request, refused)
                return redirect(page, *args, **kwargs) if page else redirect(request.path)

        return guarded

    return decorate


def show_refusal(request: HttpRequest, refused: RefusalError) -> None:
    """Show the reasons on the next page."""
    for reason in refused.reasons:
        messages.error(request, str(reason))


@contextmanager
def refusals_in(form: forms.Form, field: str | None = None) -> Iterator[None]:
    """A refusal inside becomes form errors: at the field it names, else at `field` or the form."""
    try:
        yield
    except RefusalError as refused:
        for reason in refused.reasons:
            named = reason.attr[0] if reason.attr else ""
            form.add_error(named if named in form.fields else field, str(reason))


def refusals_as_text(view: View) -> View:
    """Decorator for views of scripts and downloads: a refusal is answered with its status, headers and text."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except RefusalError as refused:
            headers = dict(refused.headers)
            return HttpResponse(str(refused), status=refused.status, content_type="text/plain", headers=headers)

    return guarded
