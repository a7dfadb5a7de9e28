"""Template tags of our admin templates."""

from typing import Any

from django import template
from django.contrib.admin.views.main import ChangeList

from projects.admin.lists import dates

register = template.Library()


@register.inclusion_tag("admin/date_hierarchy.html")
def list_dates(cl: ChangeList) -> dict[str, Any]:
    return dates(cl)
