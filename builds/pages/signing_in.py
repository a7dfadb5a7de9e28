"""The page to sign in at, and away from."""

from typing import Any

from django.contrib.auth.views import LoginView
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from chef.errors import reloading


class SignIn(LoginView):
    """A part of a page that looks again after its session has ended comes here: the whole page is loaded anew then."""

    template_name = "login.html"
    redirect_authenticated_user = True

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return reloading(request, super().dispatch(request, *args, **kwargs))
