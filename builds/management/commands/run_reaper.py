"""`manage.py run_reaper`: requeues jobs of dead workers, wakes up workers for waiting jobs, advances repairs."""

import logging
import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand
from django.db import DatabaseError, close_old_connections

from builds.fix_loop import settle_fix_loops
from builds.heartbeats import Beat
from builds.models import Heartbeat
from builds.queue.claims import LOCAL_BUILDS
from builds.reaper import reap_abandoned
from builds.sites.publishing import forget_old_previews
from chef.jobs import reaping
from chef.web.idempotency import forget_old_keys
from projects.files.uploads import forget_old_uploads
from projects.generations.queue import GENERATIONS

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0


class Command(BaseCommand):
    help = "Runs the reaper until SIGTERM or SIGINT. Running several is harmless."

    def handle(self, *args: Any, **options: Any) -> None:
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        beat = Beat(Heartbeat.Service.REAPER)
        while not stopping.wait(TICK_SECONDS):
            try:
                beat.record()
                reap_abandoned()
                reaping.reap_abandoned(GENERATIONS)
                reaping.wake_up_for_waiting(LOCAL_BUILDS)
                reaping.wake_up_for_waiting(GENERATIONS)
                settle_fix_loops()
                forget_old_keys()
                forget_old_previews()
                forget_old_uploads()
            except DatabaseError as error:
                logger.warning("the database does not answer: %s", error)
                close_old_connections()
