"""What templates say of source files: names and lines in which nothing is hidden."""

from datetime import datetime, timedelta

from django import template
from django.utils.safestring import SafeString

from builds.pages.source_text import html_line

register = template.Library()


@register.filter
def visible(text: str) -> SafeString:
    """A text of others, escaped, with what cannot be seen in it made visible."""
    return html_line(str(text))


@register.filter
def took(begin: datetime, end: datetime) -> timedelta:
    return end - begin
