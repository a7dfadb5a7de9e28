"""Where each page is."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from builds.pages.build import build_page
from builds.pages.home import home

urlpatterns = [
    path("", home, name="home"),
    path("builds/<uuid:pk>", build_page, name="build-page"),
    path("login", LoginView.as_view(template_name="login.html"), name="login"),
    path("logout", LogoutView.as_view(), name="logout"),
]
