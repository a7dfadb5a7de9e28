"""Releases, sites and previews in the admin."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from builds.admin.verbs import OPERATE
from builds.models import Preview, Release, Site
from builds.sites.publishing import activate_release, take_down
from chef.refusals import RefusalError
from projects.admin.lists import LargeList, ReadOnly, chip
from projects.admin.operations import Operates, Operation


def _activate(release: Release, by: User, reason: str) -> str:
    activate_release(release)
    return f"Made live: release {release.number}."


def _take_down(site: Site, by: User, reason: str) -> str:
    if site.live is None:
        raise RefusalError("It is down already.")
    take_down(site.project)
    return f"Taken down; release {site.live.number} was live."


@admin.register(Release)
class ReleaseAdmin(Operates[Release], LargeList, ReadOnly, admin.ModelAdmin[Release]):
    change_form_template = "admin/thing.html"
    operations = (
        Operation(
            name="activate",
            label="Make live",
            icon="rocket",
            permission=OPERATE,
            explain="Visitors of the site of each get this release from now on, in place of the one that is live.",
            why_not=lambda release: "It is live." if release.is_live else "",
            do=_activate,
        ),
    )
    list_display = ("project", "number", "live", "build", "created_by", "created_at")
    list_select_related = ("project__site", "build__project", "created_by")
    search_fields = ("project__name", "=project__site_names__slug")
    searched_ids = ("pk", "project", "build")
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-pk")

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        return lookup == "project__id__exact" or super().lookup_allowed(lookup, value, request)

    def operable(self, request: HttpRequest) -> QuerySet[Release]:
        return Release.objects.select_related("project__site")

    @admin.display(description="live")
    def live(self, release: Release) -> SafeString | str:
        return chip("live") if release.is_live else "-"


@admin.register(Site)
class SiteAdmin(Operates[Site], LargeList, ReadOnly, admin.ModelAdmin[Site]):
    change_form_template = "admin/thing.html"
    operations = (
        Operation(
            name="take_down",
            label="Take down",
            icon="stop",
            permission=OPERATE,
            explain="Of each, no release is live any more. The releases stay, and so do their own names.",
            why_not=lambda site: "" if site.live_id else "It is down already.",
            do=_take_down,
            is_dangerous=True,
        ),
    )
    list_display = ("name", "project", "where", "live", "changed_at")
    list_select_related = ("project", "name", "live__project")
    search_fields = ("=name__slug", "project__name")

    def operable(self, request: HttpRequest) -> QuerySet[Site]:
        return Site.objects.select_related("project", "live")

    @admin.display(description="address")
    def where(self, site: Site) -> SafeString:
        return format_html('<a href="{0}" rel="noopener">{0}</a>', site.address)


@admin.register(Preview)
class PreviewAdmin(LargeList, ReadOnly, admin.ModelAdmin[Preview]):
    """Previews without their address, which gives access like a key."""

    list_display = ("build", "created_by", "created_at", "expires_at")
    list_select_related = ("build__project", "created_by")
    search_fields = ("build__project__name",)
    searched_ids = ("pk", "build")
    fields = ("build", "root", "single_page", "created_by", "created_at", "expires_at")
