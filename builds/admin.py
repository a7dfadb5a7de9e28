"""What staff see of builds: the truth, read-only. What they see of webhooks is in a module of its own."""

from django.contrib import admin

import builds.webhook_admin  # noqa: F401  (registers its pages)
from builds.models import Attempt, Build, BuildEvent, WorkerHost
from projects.admin import ReadOnly


class AttemptInline(ReadOnly, admin.TabularInline[Attempt, Build]):
    model = Attempt
    extra = 0


class EventInline(ReadOnly, admin.TabularInline[BuildEvent, Build]):
    model = BuildEvent
    extra = 0


@admin.register(Build)
class BuildAdmin(ReadOnly, admin.ModelAdmin[Build]):
    list_display = ("id", "project", "number", "status", "phase", "owner", "fence", "worker", "created_at")
    list_filter = ("status", "phase", "priority")
    list_select_related = ("project", "owner")
    search_fields = ("=id", "project__name")
    date_hierarchy = "created_at"
    show_full_result_count = False
    inlines = (AttemptInline, EventInline)


@admin.register(WorkerHost)
class WorkerHostAdmin(ReadOnly, admin.ModelAdmin[WorkerHost]):
    list_display = ("name", "workers", "engine_fault", "seen_at")
