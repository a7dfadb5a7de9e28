"""The operations page: the installation's state, and the switch that pauses the queue."""

from collections.abc import Sequence
from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.admin.models import ADDITION, DELETION, LogEntry
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from builds.models import QueuePause
from builds.operations import overview
from builds.operations.overview import Bar
from builds.queue.pause import current_pause, pause_queue, resume_queue
from projects.admin.operations import MAX_REASON

SEE, OPERATE = "builds.view_build", "builds.operate_queue"
# In SVG units; _FOOT is the height of the labels below the bars.
_WIDTH, _HEIGHT, _FOOT = 720, 150, 20
_STACK = ("completed", "failed", "cancelled")


@require_safe
def operations(request: HttpRequest) -> HttpResponse:
    if not request.user.has_perm(SEE):
        raise PermissionDenied
    now = timezone.now()
    late = overview.lately(now)
    context = {
        **admin.site.each_context(request),
        "title": "Operations",
        "now": now,
        "pause": current_pause(),
        "may_operate": request.user.has_perm(OPERATE),
        "max_reason": MAX_REASON,
        "present": overview.present(now),
        "lately": late,
        "spans": [late.day, late.week],
        "sample": overview.SAMPLE,
        "charts": [
            chart("hours", "Builds that ended in each of the last 24 hours", late.hours),
            chart("days", "Builds that ended on each of the last 7 days", late.days),
        ],
        "hosts": overview.hosts(now),
        "services": overview.services(now),
        "deliveries": overview.deliveries(now),
        "generations": overview.generations(),
        "redis": overview.redis_queues(),
        "disks": overview.disks(),
    }
    return TemplateResponse(request, "admin/operations.html", context)


def chart(name: str, title: str, bars: Sequence[Bar]) -> dict[str, Any]:
    """The template's data for a bar chart: each bar stacks completed, failed and cancelled builds."""
    most = max((sum(bar.counts.values()) for bar in bars), default=0)
    room, step = _HEIGHT - _FOOT, _WIDTH / len(bars)
    drawn = []
    for number, bar in enumerate(bars):
        top, parts = float(room), []
        for status in _STACK:
            height = room * bar.counts.get(status, 0) / most if most else 0.0
            top -= height
            parts.append({"status": status, "y": round(top, 1), "height": round(height, 1)})
        drawn.append(
            {"bar": bar, "x": round(number * step + 2, 1), "middle": round((number + 0.5) * step, 1), "parts": parts}
        )
    summary = f"At most {most} in one. The table below has the numbers." if most else "None."
    return {
        "name": name,
        "title": title,
        "summary": summary,
        "bars": drawn,
        "bar_width": round(step - 4, 1),
        "most": most,
    }


@require_POST
def pause(request: HttpRequest) -> HttpResponse:
    """`do` is `pause` or `resume`."""
    if not request.user.has_perm(OPERATE):
        raise PermissionDenied
    by = cast(User, request.user)
    reason = request.POST.get("reason", "").strip()[:MAX_REASON]
    with transaction.atomic():
        message = _resume(by) if request.POST.get("do") == "resume" else _pause(by, reason)
    messages.success(request, message)
    return HttpResponseRedirect(reverse("admin-operations"))


def _pause(by: User, reason: str) -> str:
    if not pause_queue(by=by, reason=reason) or (row := current_pause()) is None:
        return "The queue was paused before."
    _write_log(by, row, ADDITION, f"Paused the queue. Reason: {reason}" if reason else "Paused the queue.")
    return "The queue is paused: no build starts until it is resumed. What runs goes on."


def _resume(by: User) -> str:
    row = current_pause()
    if row is None or not resume_queue():
        return "The queue was not paused."
    _write_log(by, row, DELETION, f"Resumed the queue, which was paused at {row.created_at:%Y-%m-%d %H:%M} UTC.")
    return "The queue is resumed: builds start again."


def _write_log(by: User, row: QueuePause, flag: int, what: str) -> None:
    row.pk = 1
    LogEntry.objects.log_actions(by.pk, [row], flag, change_message=what, single_object=True)


urlpatterns = [
    path("operations/", admin.site.admin_view(operations), name="admin-operations"),
    path("operations/pause/", admin.site.admin_view(pause), name="admin-pause"),
]
