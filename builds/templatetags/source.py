"""What templates say of source files: names and lines in which nothing is hidden."""

from datetime import datetime, timedelta
from decimal import Decimal

from django import template
from django.utils.safestring import SafeString

from builds.pages.source_text import html_line, html_text

register = template.Library()


@register.filter
def visible(text: str) -> SafeString:
    """A text of others, escaped, with what cannot be seen in it made visible."""
    return html_line(str(text))


@register.filter
def said(text: str) -> SafeString:
    """A text of several lines, as `visible` tells one."""
    return html_text(str(text))


@register.filter
def counted(number: int) -> str:
    """A number with commas, as long ones are read."""
    return f"{number:,}"


@register.filter
def cost(amount: Decimal) -> str:
    """What something has cost, to a millionth, without the zeros that say nothing."""
    return f"{amount:,.6f}".rstrip("0").rstrip(".")


@register.filter
def took(begin: datetime, end: datetime) -> timedelta:
    return end - begin
