"""What a build used of its limits: time, memory, CPU, outputs and log."""

from dataclasses import dataclass
from typing import Literal

from django.conf import settings
from django.utils import timezone

from builds.models import Build


@dataclass(frozen=True)
class Used:
    """One resource, in seconds or bytes. `used` is None if not measured, `limit` if there is none."""

    label: str
    kind: Literal["seconds", "bytes"]
    used: float | None
    limit: float | None

    @property
    def share(self) -> float | None:
        """Percentage of the limit."""
        return min(round(100 * self.used / self.limit, 1), 100.0) if self.used is not None and self.limit else None


def usage_of(build: Build) -> list[Used]:
    plan, used = build.plan or {}, build.usage or {}
    took = ((build.finished_at or timezone.now()) - build.started_at).total_seconds() if build.started_at else None
    return [
        Used("Time", "seconds", took, (plan.get("timeout") or 0) / 1000),
        Used("Peak memory", "bytes", used.get("peakMemoryBytes"), plan.get("memory")),
        Used("CPU time", "seconds", used.get("cpuSeconds"), None),
        Used("Outputs", "bytes", used.get("diskBytes"), settings.MAX_ARTIFACT_BYTES),
        Used("Log", "bytes", build.log_bytes, settings.MAX_LOG_BYTES),
    ]
