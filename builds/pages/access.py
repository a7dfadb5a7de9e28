"""Which objects a page shows: a user's own, or all of them for staff with the permission."""

from typing import TypeVar
from uuid import UUID

from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.shortcuts import get_object_or_404

from builds.models import Build
from projects.models import Generation, Project

M = TypeVar("M", bound=Model)


def visible_projects(request: HttpRequest) -> QuerySet[Project]:
    return _visible(request, Project.objects.all(), "projects.view_project")


def visible_builds(request: HttpRequest) -> QuerySet[Build]:
    return _visible(request, Build.objects.all(), "builds.view_build")


def visible_generations(request: HttpRequest) -> QuerySet[Generation]:
    return _visible(request, Generation.objects.all(), "projects.view_generation")


def _visible(request: HttpRequest, rows: QuerySet[M], permission: str) -> QuerySet[M]:
    user = request.user
    if user.is_staff and user.has_perm(permission):
        return rows
    return rows.filter(owner=user.pk)


def own_project(request: HttpRequest, pk: UUID) -> Project:
    """The user's own project, to act on; staff act on others through the admin. Raises Http404."""
    return get_object_or_404(Project, pk=pk, owner=request.user.pk)
