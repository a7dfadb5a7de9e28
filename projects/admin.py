"""What staff see of projects and tokens. A token's value is never shown: only its hash is kept."""

from django.contrib import admin

from projects.models import ApiToken, Project, Revision


@admin.register(Project)
class ProjectAdmin(admin.ModelAdmin[Project]):
    list_display = ("name", "owner", "id", "created_at")
    list_select_related = ("owner",)
    search_fields = ("name", "=id", "owner__username")
    readonly_fields = ("id", "created_at", "updated_at")


@admin.register(Revision)
class RevisionAdmin(admin.ModelAdmin[Revision]):
    list_display = ("project", "number", "origin", "file_count", "total_bytes", "created_at")
    list_select_related = ("project",)
    readonly_fields = ("project", "number", "origin", "strategy", "dependencies", "file_count", "total_bytes")


@admin.register(ApiToken)
class ApiTokenAdmin(admin.ModelAdmin[ApiToken]):
    list_display = ("name", "prefix", "owner", "scope", "created", "expiry_date", "revoked")
    list_select_related = ("owner",)
    readonly_fields = ("prefix", "hashed_key", "created", "owner", "scope")
    exclude = ("hashed_key",)

    def has_add_permission(self, request: object) -> bool:
        return False  # `manage.py create_token` shows the value once
