"""Pauses of the queue, and heartbeats of processes."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone


class QueuePause(models.Model):
    """While a row exists, no build starts, here or in an external builder; running ones continue. At most one row."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    reason = models.CharField(max_length=500, blank=True)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        permissions = [("operate_queue", "Can pause and resume the queue")]
        constraints = [models.CheckConstraint(condition=Q(id=1), name="queue_pause_once")]

    def __str__(self) -> str:
        return f"paused since {self.created_at:%Y-%m-%d %H:%M} UTC"


class Heartbeat(models.Model):
    """When a process last reported, for each machine that runs it: see builds.heartbeats."""

    class Service(models.TextChoices):
        REAPER = "reaper"
        SENDER = "sender"

    service = models.CharField(max_length=10, choices=Service)
    host = models.CharField(max_length=100)
    seen_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["service", "host"], name="heartbeat_of_service_and_host_once")]

    def __str__(self) -> str:
        return f"{self.service} on {self.host}"
