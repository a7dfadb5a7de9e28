"""Where each page is."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from builds.pages.build import build_page
from builds.pages.code import code_page
from builds.pages.diff import diff_page
from builds.pages.generation import cancel, generation_page, retry
from builds.pages.home import home

urlpatterns = [
    path("", home, name="home"),
    path("builds/<uuid:pk>", build_page, name="build-page"),
    path("projects/<uuid:pk>/code", code_page, name="code-page"),
    path("projects/<uuid:pk>/code/<int:number>", code_page, name="code-page"),
    path("projects/<uuid:pk>/code/<int:number>/<path:path>", code_page, name="code-file"),
    path("projects/<uuid:pk>/diff/<int:before>/<int:after>", diff_page, name="diff-page"),
    path("generations/<uuid:pk>", generation_page, name="generation-page"),
    path("generations/<uuid:pk>/cancel", cancel, name="cancel-generation"),
    path("generations/<uuid:pk>/retry", retry, name="retry-generation"),
    path("login", LoginView.as_view(template_name="login.html"), name="login"),
    path("logout", LogoutView.as_view(), name="logout"),
]
