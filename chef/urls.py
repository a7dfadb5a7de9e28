"""The URLs of the whole installation."""

from django.conf import settings
from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView
from rest_framework.routers import SimpleRouter

from builds.api.builds import BuildViewSet
from builds.api.external import ArchiveView, ClaimView, HeartbeatView, ResultView
from builds.api.generations import GenerateViewSet, GenerationViewSet
from builds.api.projects import ProjectRevisionViewSet, ProjectViewSet
from builds.api.publishing import ReleaseViewSet
from builds.api.schema.views import DocsView, SchemaView
from builds.api.service import DetectViewSet, HealthView, LiveView, RuntimesViewSet
from builds.api.webhooks import WebhookViewSet
from builds.pages.signing_in import admin_sign_in
from chef.web import errors

api = SimpleRouter(trailing_slash=False, use_regex_path=False)
api.register("projects", ProjectViewSet, basename="project")
api.register("builds", BuildViewSet, basename="build")
api.register("generations", GenerationViewSet, basename="generation")
api.register("webhooks", WebhookViewSet, basename="webhook")

# More views below a project under the same basename: a router takes each basename only once.
of_project = [SimpleRouter(trailing_slash=False, use_regex_path=False) for _ in range(2)]
of_project[0].register("projects", ProjectRevisionViewSet, basename="project")
of_project[1].register("projects", ReleaseViewSet, basename="project")

urlpatterns = [
    path("", include("builds.pages.urls")),
    # For clients that request it by default: the pages link their icon themselves.
    path("favicon.ico", RedirectView.as_view(url=f"/{settings.STATIC_URL.strip('/')}/icon.svg")),
    path("admin/login/", admin_sign_in),
    path("admin/", include("builds.admin.queue_pages")),
    path("admin/", include("builds.admin.overview")),
    path("admin/", admin.site.urls),
    path("health", HealthView.as_view(), name="health"),
    path("health/live", LiveView.as_view(), name="health-live"),
    *(path("v1/", include(router.urls)) for router in (api, *of_project)),
    path("v1/generate", GenerateViewSet.as_view({"post": "create"}), name="generate"),
    path("v1/detect", DetectViewSet.as_view({"post": "create"}), name="detect"),
    path("v1/hooks/worker-claim", ClaimView.as_view(), name="worker-claim"),
    path("v1/hooks/worker-heartbeat", HeartbeatView.as_view(), name="worker-heartbeat"),
    path("v1/hooks/worker-result", ResultView.as_view(), name="worker-result"),
    path("v1/hooks/worker-archive/<str:token>", ArchiveView.as_view(), name="worker-archive"),
    path("v1/runtimes", RuntimesViewSet.as_view({"get": "retrieve"}), name="runtimes"),
    path("v1/schema", SchemaView.as_view(), name="schema"),
    path("v1/docs", DocsView.as_view(), name="docs"),
    # With DEBUG on too, where Django would otherwise show its own 404 page.
    re_path("^v1/", errors.nothing_here),
]

handler400 = "chef.web.errors.bad_request"
handler403 = "chef.web.errors.forbidden"
handler404 = "chef.web.errors.not_found"
handler500 = "chef.web.errors.server_error"
