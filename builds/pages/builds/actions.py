"""An owner's actions on the page of a build. Staff act on other people's builds through the admin."""

from typing import cast
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from builds import actions
from builds.models import Build
from builds.pages.refusals import refusals_shown
from builds.sites import publishing


@login_required
@require_POST
def cancel(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Cancel the build, if it has not ended."""
    build = _own_build(request, pk)
    if actions.cancel_build(build, by=cast(User, request.user)):
        messages.success(request, "Cancelled. What still runs is stopped within seconds.")
    else:
        messages.info(request, f"The build had already ended: it is {build.status}.")
    return redirect("build-page", build.pk)


@login_required
@require_POST
@refusals_shown("build-page")
def retry(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Build the same revision again, and redirect to the new build."""
    build = _own_build(request, pk)
    again = actions.retry_build(build, by=cast(User, request.user))
    messages.success(request, f"Queued as build #{again.number}, of the same files as #{build.number}.")
    return redirect("build-page", again.pk)


@login_required
@require_POST
@refusals_shown("build-page")
def publish(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Make a release of the build, and make it live."""
    build = _own_build(request, pk)
    release, warnings = publishing.publish_build(build, by=cast(User, request.user))
    messages.success(request, f"Release {release.number} is live.")
    for warning in warnings:
        messages.warning(request, warning)
    return redirect(f"{reverse('build-page', args=[build.pk])}#published")


def _own_build(request: HttpRequest, pk: UUID) -> Build:
    return get_object_or_404(Build.objects.select_related("project", "revision"), pk=pk, owner=request.user.pk)
