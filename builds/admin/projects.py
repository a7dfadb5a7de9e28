"""Projects in the admin; here rather than in `projects`, because deleting or quarantining one affects builds."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from builds.admin.verbs import PROJECT_OPERATIONS, is_held
from projects.admin.lists import LargeList, ReadOnly, chip
from projects.admin.operations import Operates
from projects.models import Project, Quarantine


@admin.register(Project)
class ProjectAdmin(Operates[Project], LargeList, ReadOnly, admin.ModelAdmin[Project]):
    operations = PROJECT_OPERATIONS
    change_form_template = "admin/thing.html"
    list_display = ("name", "owner", "held", "id", "created_at")
    list_select_related = ("owner", "quarantine")
    list_filter = (("quarantine", admin.EmptyFieldListFilter),)
    search_fields = ("name", "owner__username")
    date_hierarchy = "created_at"
    fields = ("name", "owner", "id", "created_at", "updated_at", "held", "why_held", "what_there_is")
    readonly_fields = fields

    def operable(self, request: HttpRequest) -> QuerySet[Project]:
        return Project.objects.select_related("owner", "quarantine__by")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Project]:
        return super().get_queryset(request).select_related("owner", "quarantine__by")

    @admin.display(description="quarantine")
    def held(self, project: Project) -> SafeString | str:
        return chip("warning", "in quarantine") if is_held(project) else "-"

    @admin.display(description="why")
    def why_held(self, project: Project) -> str:
        if not is_held(project):
            return "-"
        row: Quarantine = project.quarantine
        return f"{row.reason} ({row.by or 'somebody who is gone'}, {row.created_at:%Y-%m-%d %H:%M} UTC)"

    @admin.display(description="what there is")
    def what_there_is(self, project: Project) -> SafeString:
        return format_html(
            '<a href="{}?project__id__exact={pk}">Builds</a> · <a href="{}?project__id__exact={pk}">Revisions</a> · '
            '<a href="{}?project__id__exact={pk}">Generations</a> · <a href="{}?project__id__exact={pk}">Releases</a>',
            *(reverse(f"admin:{name}_changelist") for name in ("builds_build", "projects_revision")),
            *(reverse(f"admin:{name}_changelist") for name in ("projects_generation", "builds_release")),
            pk=project.pk,
        )
