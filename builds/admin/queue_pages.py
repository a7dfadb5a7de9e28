"""django-rq's own pages, behind our permissions: SEE to look, OPERATE to empty a queue or requeue a job.

The content security policy allows their inline styles by hash. It still blocks the one inline script of their lists,
which calls a function that Django's admin removed long ago: nothing depends on it.
"""

import re
from base64 import b64encode
from collections.abc import Callable
from functools import cache, wraps
from hashlib import sha256
from typing import Any

from csp.decorators import csp_update
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.template.loader import get_template
from django.urls import include, path
from django_rq.stats_views import stats_json
from django_rq.urls import get_admin_urlpatterns

from builds.admin.overview import OPERATE, SEE

View = Callable[..., HttpResponseBase]

_STYLED = ("stats", "clear_queue", "clear_failed_queue", "delete_job", "requeue_all", "result_detail", "worker_details")


def guarded(view: View) -> View:
    @wraps(view)
    def guard(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.has_perm(SEE if request.method in ("GET", "HEAD") else OPERATE):
            raise PermissionDenied
        styled: View = csp_update({"style-src": _styles()})(view)
        return styled(request, *args, **kwargs)

    return admin.site.admin_view(guard)  # type: ignore[return-value,arg-type,unused-ignore]


@cache
def _styles() -> list[str]:
    """CSP sources (hashes) of the inline styles in these pages' templates: none depends on a page's content."""
    sources = [get_template(f"django_rq/{name}.html").template.source for name in _STYLED]  # type: ignore[attr-defined]
    texts = {text for source in sources for text in re.findall(r"<style>(.*?)</style>", source, re.DOTALL)}
    return sorted(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts)


_pages = [path("stats.json", guarded(stats_json), name="home_json"), *get_admin_urlpatterns(view_wrapper=guarded)]
urlpatterns = [path("queue/", include((_pages, "django_rq")))]
