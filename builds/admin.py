"""What staff see of builds: the truth, read-only. What they see of webhooks is in a module of its own."""

from django.contrib import admin

import builds.webhook_admin  # noqa: F401  (registers its pages)
from builds.models import Attempt, Build, BuildEvent, Preview, Release, Site, WorkerHost
from projects.admin import ReadOnly


class AttemptInline(ReadOnly, admin.TabularInline[Attempt, Build]):
    model = Attempt
    extra = 0


class EventInline(ReadOnly, admin.TabularInline[BuildEvent, Build]):
    model = BuildEvent
    extra = 0


@admin.register(Build)
class BuildAdmin(ReadOnly, admin.ModelAdmin[Build]):
    list_display = (
        "id",
        "project",
        "number",
        "status",
        "phase",
        "is_external",
        "owner",
        "fence",
        "worker",
        "created_at",
    )
    list_filter = ("status", "phase", "is_external", "priority")
    list_select_related = ("project", "owner")
    search_fields = ("=id", "project__name")
    date_hierarchy = "created_at"
    show_full_result_count = False
    inlines = (AttemptInline, EventInline)


@admin.register(WorkerHost)
class WorkerHostAdmin(ReadOnly, admin.ModelAdmin[WorkerHost]):
    list_display = ("name", "workers", "engine_fault", "seen_at")


@admin.register(Release)
class ReleaseAdmin(ReadOnly, admin.ModelAdmin[Release]):
    list_display = ("project", "number", "build", "created_by", "created_at")
    list_select_related = ("project", "build__project", "created_by")
    search_fields = ("=id", "project__name", "=project__site_names__slug")
    date_hierarchy = "created_at"
    show_full_result_count = False


@admin.register(Site)
class SiteAdmin(ReadOnly, admin.ModelAdmin[Site]):
    list_display = ("name", "project", "live", "changed_at")
    list_select_related = ("project", "name", "live__project")
    search_fields = ("=name__slug", "project__name")
    show_full_result_count = False


@admin.register(Preview)
class PreviewAdmin(ReadOnly, admin.ModelAdmin[Preview]):
    list_display = ("build", "created_by", "created_at", "expires_at")
    list_select_related = ("build__project", "created_by")
    show_full_result_count = False
