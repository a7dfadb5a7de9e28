"""URLs of the pages."""

from django.contrib.auth.views import LogoutView
from django.urls import path

from builds.pages.builds import actions as build_actions
from builds.pages.builds import log as build_log
from builds.pages.builds.artifacts import artifact_page, artifacts_page, preview
from builds.pages.builds.build import build_page, build_state
from builds.pages.files.code import code_page
from builds.pages.files.diff import diff_page
from builds.pages.generation import cancel, generation_page, retry
from builds.pages.home import home
from builds.pages.projects.choices import choices
from builds.pages.projects.new import new_files, new_project
from builds.pages.projects.overview import project_builds, project_page
from builds.pages.projects.releases import project_releases
from builds.pages.settings.project import project_settings
from builds.pages.settings.tokens import tokens
from builds.pages.settings.webhooks import project_webhook
from builds.pages.signing_in import SignIn

urlpatterns = [
    path("", home, name="home"),
    path("new", new_project, name="new-project"),
    path("new/<uuid:pk>", choices, name="choices"),
    path("projects/<uuid:pk>", project_page, name="project-page"),
    path("projects/<uuid:pk>/files", new_files, name="new-files"),
    path("projects/<uuid:pk>/builds", project_builds, name="project-builds"),
    path("projects/<uuid:pk>/releases", project_releases, name="project-releases"),
    path("projects/<uuid:pk>/settings", project_settings, name="project-settings"),
    path("projects/<uuid:pk>/webhooks/<uuid:webhook>", project_webhook, name="project-webhook"),
    path("tokens", tokens, name="tokens"),
    path("builds/<uuid:pk>", build_page, name="build-page"),
    path("projects/<uuid:pk>/code", code_page, name="code-page"),
    path("projects/<uuid:pk>/code/<int:number>", code_page, name="code-page"),
    path("projects/<uuid:pk>/code/<int:number>/<path:path>", code_page, name="code-file"),
    path("projects/<uuid:pk>/diff/<int:before>/<int:after>", diff_page, name="diff-page"),
    path("generations/<uuid:pk>", generation_page, name="generation-page"),
    path("generations/<uuid:pk>/cancel", cancel, name="cancel-generation"),
    path("generations/<uuid:pk>/retry", retry, name="retry-generation"),
    path("login", SignIn.as_view(), name="login"),
    path("logout", LogoutView.as_view(next_page="login"), name="logout"),
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
]
