"""Builds in the admin: the searchable list, the page of one build, and its operations."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from builds.admin import columns
from builds.admin.build_page import facts_of
from builds.admin.verbs import BUILD_OPERATIONS
from builds.models import Build, PhaseName, WorkerHost
from builds.runtimes.catalogue import RUNTIMES
from builds.templatetags.chef import ago, duration
from builds.verdicts.evidence import VerdictClass
from chef.jobs.models import Status
from projects.admin.lists import LargeList, ReadOnly, choices_of, conditions_by_name
from projects.admin.operations import Operates
from projects.models import Quarantine

_NOT_LISTED = ("plan", "usage", "egress", "image")

RuntimeFilter = choices_of("runtime", "runtime", [(name, name) for name in RUNTIMES])
VerdictFilter = choices_of("verdict", "verdict_class", [(kind.value, kind.value) for kind in VerdictClass])


BuilderFilter = choices_of("builder", "is_external__exact", [("0", "here"), ("1", "outside")], by="is_external")


class PhaseFilter(admin.SimpleListFilter):
    """Filters running builds by phase: the phase of an ended build does not matter."""

    title, parameter_name = "running in", "phase"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name.value, name.label) for name in PhaseName]

    def queryset(self, request: HttpRequest, rows: QuerySet[Build]) -> QuerySet[Build]:
        return rows.filter(status=Status.RUNNING, phase=self.value()) if self.value() else rows


class HeldFilter(admin.SimpleListFilter):
    title, parameter_name = "quarantine", "held"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("1", "in quarantine")]

    def queryset(self, request: HttpRequest, rows: QuerySet[Build]) -> QuerySet[Build]:
        return rows.filter(project__in=list(Quarantine.objects.values_list("pk", flat=True))) if self.value() else rows


@admin.register(Build)
class BuildAdmin(Operates[Build], LargeList, ReadOnly, admin.ModelAdmin[Build]):
    operations = BUILD_OPERATIONS
    list_display = ("name", "state", "why", "whose", "age", "took", "by_worker")
    list_filter = ("status", VerdictFilter, RuntimeFilter, PhaseFilter, "priority", BuilderFilter, HeldFilter)
    list_select_related = ("project", "owner")
    search_fields = ("pk",)
    searched_ids = ("pk", "project", "generation")
    search_help_text = "The id of a build, a project or a generation; an owner's name; a part of a project's name."
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-pk")
    sortable_by = ("age",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Build]:
        return super().get_queryset(request).defer(*_NOT_LISTED)

    def operable(self, request: HttpRequest) -> QuerySet[Build]:
        rows = Build.objects.select_related("project__quarantine", "project__owner", "owner", "revision")
        return rows.order_by("-created_at")

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        return lookup in ("project__id__exact", "owner__id__exact") or super().lookup_allowed(lookup, value, request)

    def search_conditions(self, term: str) -> list[Q]:
        return conditions_by_name(term)

    # --- The page of one build -----------------------------------------------------------------------------------

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            raise PermissionDenied  # builds are read-only: operations have their own pages
        rows = self.operable(request).select_related("generation", "retry_of", "repair_of", "project__quarantine__by")
        build = get_object_or_404(rows, pk=_uuid(object_id))
        context = {
            **self.admin_site.each_context(request),
            "title": str(build),
            "opts": self.opts,
            "build": build,
            "buttons": self.buttons(request, build),
            "history": reverse("admin:builds_build_history", args=[build.pk]),
            **facts_of(build),
        }
        return TemplateResponse(request, "admin/builds/build/page.html", context)

    # --- Columns -------------------------------------------------------------------------------------------------

    @admin.display(description="build")
    def name(self, build: Build) -> str:
        return str(build)

    @admin.display(description="state")
    def state(self, build: Build) -> SafeString:
        return columns.state(build)

    @admin.display(description="verdict")
    def why(self, build: Build) -> SafeString | str:
        return columns.why(build)

    @admin.display(description="age", ordering="created_at")
    def age(self, build: Build) -> SafeString | str:
        return ago(build.created_at)

    @admin.display(description="owner")
    def whose(self, build: Build) -> SafeString:
        return format_html('{}<br><span class="chef-quiet">{}</span>', build.owner, build.runtime or "-")

    @admin.display(description="took")
    def took(self, build: Build) -> str:
        return duration(time_of(build))

    @admin.display(description="worker")
    def by_worker(self, build: Build) -> SafeString | str:
        if not build.fence:
            return "-"
        where = "outside, " if build.is_external else ""
        return format_html(
            '{}<br><span class="chef-quiet nowrap">{}attempt {}</span>', build.worker, where, build.fence
        )


def time_of(build: Build) -> timedelta | None:
    """From the first start to the end, or to now; None before the start."""
    if build.started_at is None:
        return None
    return (build.finished_at or timezone.now()) - build.started_at


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


@admin.register(WorkerHost)
class WorkerHostAdmin(ReadOnly, admin.ModelAdmin[WorkerHost]):
    list_display = ("name", "workers", "engine_fault", "seen_at")
