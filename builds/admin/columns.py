"""Short forms of a build's state and verdict for the admin's lists and pages."""

from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString

from builds.models import Build
from chef.jobs.models import Status
from projects.admin.lists import chip


def state(build: Build) -> SafeString:
    """The status; while the build runs, the phase too."""
    if build.status == Status.RUNNING and build.phase:
        return format_html('{} <span class="chef-quiet">{}</span>', chip(build.status), build.phase)
    return chip(build.status)


def why(build: Build) -> SafeString | str:
    """The code and the class of the verdict."""
    verdict: dict[str, Any] | None = build.verdict
    if not verdict:
        return "-"
    return format_html('{}<br><span class="chef-quiet">{}</span>', verdict["code"], verdict["class"])
