"""Whose things a page shows: someone else's is not there, but for staff who may see them all."""

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
    """The project, to act on: staff see those of others, and act on them through the admin. Raises Http404."""
    return get_object_or_404(Project, pk=pk, owner=request.user.pk)
