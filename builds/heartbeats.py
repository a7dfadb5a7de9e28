"""Heartbeats of background processes in the database: otherwise idle and dead would look the same."""

import socket
import time
from datetime import timedelta

from django.utils import timezone

from builds.models import Heartbeat

BEAT_SECONDS = 10.0
SILENCE = timedelta(seconds=35)  # a process that has not reported for this long is dead
FORGOTTEN_AFTER = timedelta(days=1)


class Beat:
    """The heartbeat of this process. `record` may be called often; it writes every BEAT_SECONDS."""

    def __init__(self, service: Heartbeat.Service) -> None:
        self._service = service
        self._told_at = float("-inf")

    def record(self) -> None:
        if time.monotonic() - self._told_at < BEAT_SECONDS:
            return
        now = timezone.now()
        Heartbeat.objects.update_or_create(
            service=self._service, host=socket.gethostname()[:100], defaults={"seen_at": now}
        )
        Heartbeat.objects.filter(seen_at__lt=now - FORGOTTEN_AFTER).delete()
        self._told_at = time.monotonic()


def is_there(service: Heartbeat.Service) -> bool:
    return Heartbeat.objects.filter(service=service, seen_at__gt=timezone.now() - SILENCE).exists()
