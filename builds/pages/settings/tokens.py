"""The user's API tokens: list, create, revoke. A new one is shown once."""

from typing import cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from builds.pages.forms import TokenForm
from builds.pages.one_time_secrets import no_store, show_once, shown_once
from projects.models import ApiToken
from projects.tokens import make_token, revoke_token

_SHOWN = 200


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def tokens(request: HttpRequest) -> HttpResponse:
    """All of the user's tokens. A POST creates one (`do=make`) or revokes one (`do=revoke`, `prefix`)."""
    mine = ApiToken.objects.filter(owner=request.user.pk)
    form = TokenForm()
    if request.method == "POST":
        form = TokenForm(request.POST) if request.POST.get("do") == "make" else form
        if not form.is_bound:
            _revoke(request, get_object_or_404(mine, prefix=request.POST.get("prefix", "").replace("\0", "")))
        if not form.is_bound or _is_made(request, form):
            return redirect("tokens")
    context = {
        "here": "tokens",
        "form": form,
        "tokens": mine.order_by("revoked", "-created")[:_SHOWN],
        "now": timezone.now(),
        "secret": shown_once(request, about="token"),
    }
    return no_store(render(request, "tokens.html", context, status=422 if form.is_bound else 200))


def _is_made(request: HttpRequest, form: TokenForm) -> bool:
    if not form.is_valid():
        return False
    data = form.cleaned_data
    _, key = make_token(by=cast(User, request.user), name=data["name"], scope=data["scope"], days=data["days"])
    show_once(request, key, about="token")
    return True


def _revoke(request: HttpRequest, token: ApiToken) -> None:
    revoke_token(token)
    messages.success(request, f"The token {token.name} is revoked: whoever still sends it is refused.")
