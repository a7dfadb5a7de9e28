"""What the actions refuse, shown to people: at the top of the page that comes next, or in the form that was sent."""

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
    """For a view of POSTs: what its action refuses is shown at the top of a page that the answer leads to.

    `page` is the name of an address that takes what the view's takes; by default, the view's own.
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
    """Have the next page say why."""
    for reason in refused.reasons:
        messages.error(request, str(reason))


@contextmanager
def refusals_in(form: forms.Form, field: str | None = None) -> Iterator[None]:
    """What is refused inside becomes an error of the form: at its field of that name, else at `field` or the form."""
    try:
        yield
    except RefusalError as refused:
        for reason in refused.reasons:
            named = reason.attr[0] if reason.attr else ""
            form.add_error(named if named in form.fields else field, str(reason))


def refusals_as_text(view: View) -> View:
    """For a view that a script or a download asks: a refusal is its status, headers and text."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except RefusalError as refused:
            headers = dict(refused.headers)
            return HttpResponse(str(refused), status=refused.status, content_type="text/plain", headers=headers)

    return guarded
