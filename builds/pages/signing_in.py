"""The sign-in page. Attempts are rate-limited by client address, as for API tokens."""

from typing import Any

from django.contrib.auth.views import LoginView, redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse

from chef.web.errors import reloading
from chef.web.rate_limits import address_of, check


class SignIn(LoginView):
    """An htmx request whose session has ended is redirected here: it then reloads the whole page."""

    template_name = "login.html"
    redirect_authenticated_user = True

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return reloading(request, super().dispatch(request, *args, **kwargs))

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        decision = check(address_of(request), "anonymous")
        if decision and not decision.allowed:
            context = self.get_context_data(form=self.get_form_class()(request), too_many=decision.reset)
            return self.render_to_response(context, status=429, headers={"Retry-After": str(decision.reset)})
        return super().post(request, *args, **kwargs)


def admin_sign_in(request: HttpRequest) -> HttpResponse:
    """Replaces the admin's login: anonymous users sign in here. Raises PermissionDenied for others."""
    if request.user.is_authenticated:
        raise PermissionDenied
    return redirect_to_login(request.GET.get("next", reverse("admin:index")))
