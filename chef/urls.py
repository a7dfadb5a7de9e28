"""Every path of the installation."""

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path

from builds import views
from builds.api import HealthView, LiveView, ProjectViewSet

status, logs, artifacts, artifact = (
    ProjectViewSet.as_view({"get": name}) for name in ("status", "logs", "artifacts", "artifact")
)

urlpatterns = [
    path("", views.home, name="home"),
    path("builds/<uuid:pk>", views.build_page, name="build-page"),
    path("login", LoginView.as_view(template_name="login.html"), name="login"),
    path("logout", LogoutView.as_view(), name="logout"),
    path("admin/queue/", include("django_rq.urls")),
    path("admin/", admin.site.urls),
    path("health", HealthView.as_view(), name="health"),
    path("health/live", LiveView.as_view(), name="health-live"),
    path("v1/projects", ProjectViewSet.as_view({"post": "create"}), name="projects"),
    path("v1/projects/<str:pk>/status", status, name="status"),
    path("v1/projects/<str:pk>/logs", logs, name="logs"),
    path("v1/projects/<str:pk>/artifacts", artifacts, name="artifacts"),
    path("v1/projects/<str:pk>/artifacts/<path:name>", artifact, name="artifact"),
]

handler404 = "chef.errors.not_found"
handler500 = "chef.errors.server_error"
