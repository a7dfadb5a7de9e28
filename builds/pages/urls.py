"""Where each page is."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from builds.pages import build_actions, build_log
from builds.pages.artifacts import artifact_page, artifacts_page, preview
from builds.pages.build import build_page, build_state
from builds.pages.home import home

urlpatterns = [
    path("", home, name="home"),
    path("builds/<uuid:pk>", build_page, name="build-page"),
    path("builds/<uuid:pk>/state", build_state, name="build-page-state"),
    path("builds/<uuid:pk>/stream", build_log.stream, name="build-page-stream"),
    path("builds/<uuid:pk>/log", build_log.log_page, name="build-page-log"),
    path("builds/<uuid:pk>/log.txt", build_log.log_as_text, name="build-page-log-text"),
    path("builds/<uuid:pk>/cancel", build_actions.cancel, name="build-page-cancel"),
    path("builds/<uuid:pk>/retry", build_actions.retry, name="build-page-retry"),
    path("builds/<uuid:pk>/publish", build_actions.publish, name="build-page-publish"),
    path("builds/<uuid:pk>/preview", preview, name="build-page-preview"),
    path("builds/<uuid:pk>/artifacts", artifacts_page, name="build-page-artifacts"),
    path("builds/<uuid:pk>/artifacts/<path:name>", artifact_page, name="build-page-artifact"),
    path("login", LoginView.as_view(template_name="login.html"), name="login"),
    path("logout", LogoutView.as_view(), name="logout"),
]
