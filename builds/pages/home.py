"""The first page: what is there, and how it is getting on."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from builds.models import Build

BUILDS_SHOWN = 50


@login_required
def home(request: HttpRequest) -> HttpResponse:
    """The latest builds of whoever is signed in."""
    builds = Build.objects.filter(owner=request.user.pk).select_related("project", "revision")
    return render(request, "builds/home.html", {"builds": builds.order_by("-created_at")[:BUILDS_SHOWN]})
