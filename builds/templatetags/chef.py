"""Template tags and filters: icons, durations, times, numbers, and untrusted text with hidden characters marked."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString

from builds.logs.lines import Line
from builds.runtimes.catalogue import RUNTIMES
from chef.jobs.models import Job
from chef.text.hidden_characters import marked, spelled
from chef.text.source_text import html_line

register = template.Library()

MOST_OF_LINE = 4_000  # characters shown of a log line; static/js/log-text.js has the same limit

# Stroked SVG paths in a 24 x 24 view box.
_ICONS = {
    "chef": "M7 20v-6.2A4 4 0 0 1 6 6.1a4.6 4.6 0 0 1 8.4-1.8 4.5 4.5 0 0 1 3.6 1.8 4 4 0 0 1-1 7.7V20zM7 17h10",
    "branch": "M6 4v16M6 14c6 0 12-1 12-7M18 4v3",
    "check": "M5 12.5l4.5 4.5L19 7.5",
    "clock": "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 7v5l3 2",
    "copy": "M9 9h11v11H9zM5 15H4V4h11v1",
    "cross": "M6 6l12 12M18 6L6 18",
    "down": "M12 4v12M6.5 11L12 16.5 17.5 11M5 20h14",
    "external": "M14 4h6v6M20 4l-9 9M18 14v6H4V6h6",
    "file": "M6 3h8l4 4v14H6zM14 3v4h4",
    "folder": "M3 6h6l2 2h10v11H3z",
    "gear": "M12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM12 3v3M12 18v3M3 12h3M18 12h3M5.6 5.6l2.1 2.1"
    "M16.3 16.3l2.1 2.1M5.6 18.4l2.1-2.1M16.3 7.7l2.1-2.1",
    "key": "M8 11a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM11 12l8-8M16 7l3 3",
    "plus": "M12 5v14M5 12h14",
    "retry": "M20 5v5h-5M19.5 10A8 8 0 1 0 20 14",
    "rocket": "M12 15l-3-3c1-5 4-8 10-9-1 6-4 9-9 10zM9 12H5l2-4h4M12 15v4l4-2v-4M6 16l-2 4 4-2",
    "search": "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM15.5 15.5L20 20",
    "spark": "M12 3l2 6 6 2-6 2-2 6-2-6-6-2 6-2z",
    "stop": "M6 6h12v12H6z",
    "trash": "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
    "up": "M12 20V8M6.5 13L12 7.5 17.5 13M5 4h14",
    "wrap": "M4 6h16M4 12h13a3 3 0 0 1 0 6h-4M15 15.5L12.5 18l2.5 2.5M4 18h4",
    "warning": "M12 4l9 16H3zM12 10v4M12 17v.5",
}


@register.simple_tag
def icon(name: str) -> SafeString:
    """A decorative icon, hidden from screen readers: put text beside it."""
    return format_html('<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d="{}"/></svg>', _ICONS[name])


@register.filter
def runtime_of(plan: Mapping[str, Any]) -> str:
    """The display name of a plan's runtime: `node 22`, `static`."""
    name, version = str(plan.get("runtime", "")), str(plan.get("version", ""))
    known = RUNTIMES.get(name)
    return f"{name} {version}" if version and (known is None or known.shows_version) else name


@register.filter
def duration(taken: timedelta | float | None) -> str:
    """A timedelta, or seconds, in its two largest units: `4.2 s`, `1 min 5 s`, `2 h 10 min`."""
    if taken is None:
        return "-"
    seconds = taken.total_seconds() if isinstance(taken, timedelta) else float(taken)
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


@register.filter
def took(job: Job) -> timedelta | None:
    """How long a build or generation took from first start to end; None if it has not started or ended."""
    return job.finished_at - job.started_at if job.finished_at and job.started_at else None


@register.filter
def time_taken(run: Any) -> str:
    """The duration of a row with `started_at` and `finished_at`, such as a phase; up to now if it runs."""
    return duration((run.finished_at or timezone.now()) - run.started_at)


@register.filter
def ago(moment: datetime | None) -> SafeString | str:
    """How long ago a moment was, with the exact time as a tooltip."""
    if moment is None:
        return "-"
    seconds = (timezone.now() - moment).total_seconds()
    text = "just now" if seconds < 5 else f"{_rounded(seconds)} ago"
    title = f"{moment:%Y-%m-%d %H:%M:%S} UTC"
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), title, text)


def _rounded(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


@register.filter
def size(count: int | None) -> str:
    """A number of bytes, like Django's `filesizeformat`, which is too slow for a thousand files."""
    count = count or 0
    for unit, least in (("TB", 1024**4), ("GB", 1024**3), ("MB", 1024**2), ("KB", 1024)):
        if count >= least:
            return f"{count / least:,.1f}\N{NO-BREAK SPACE}{unit}"
    return f"{count}\N{NO-BREAK SPACE}byte{'' if count == 1 else 's'}"


@register.filter
def counted(number: int) -> str:
    """A number with thousands separators."""
    return f"{number:,}"


@register.filter
def cost(amount: Decimal) -> str:
    """A cost to six decimals, without trailing zeros."""
    return f"{amount:,.6f}".rstrip("0").rstrip(".")


# --- Untrusted text --------------------------------------------------------------------------------------------------


@register.filter
def visible(text: object) -> SafeString:
    """Untrusted text within a page: isolated from its text direction, with hidden characters made visible."""
    return format_html("<bdi>{}</bdi>", marked(escape(str(text).replace("\r\n", "\n"))))


@register.filter
def visible_text(text: object) -> str:
    """The same without markup, for titles and attributes."""
    return spelled(str(text))


@register.filter
def source_line(text: str, most: int) -> SafeString:
    """A line of a file, cut after `most` characters."""
    return html_line(text, most)


@register.simple_tag
def log_line(line: Line) -> SafeString:
    """A line of a log with its ANSI colours as classes."""
    html, left = SafeString(), MOST_OF_LINE
    for text, look in line.parts:
        if shown := text[:left]:
            named = format_html(' class="{}"', look.classes) if look.classes else ""
            html += format_html("<span{}>{}</span>", named, marked(escape(shown)))
        left -= min(len(text), left)
    rest = sum(len(text) for text, _ in line.parts) - MOST_OF_LINE
    more = format_html('<span class="more"> … {} more characters, which the raw text has</span>', rest)
    return html + more if rest > 0 else html
