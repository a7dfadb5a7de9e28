"""What templates say of source files: names and lines in which nothing is hidden."""

from datetime import datetime, timedelta
from decimal import Decimal

from django import template
from django.utils.safestring import SafeString

from builds.pages.source_text import MAX_LINE_CHARS, html_line, html_text

register = template.Library()


@register.filter
def visible(text: str, most: int = MAX_LINE_CHARS) -> SafeString:
    """A text of others, escaped, with what cannot be seen in it made visible; cut after so many characters."""
    return html_line(str(text), most)


@register.filter
def said(text: str) -> SafeString:
    """A text of several lines, as `visible` tells one."""
    return html_text(str(text))


@register.filter
def size(count: int) -> str:
    """So many bytes, like Django's `filesizeformat`, which is too slow for a thousand files."""
    for unit, least in (("MB", 1024**2), ("KB", 1024)):
        if count >= least:
            return f"{count / least:.1f}\N{NO-BREAK SPACE}{unit}"
    return f"{count}\N{NO-BREAK SPACE}byte{'' if count == 1 else 's'}"


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
