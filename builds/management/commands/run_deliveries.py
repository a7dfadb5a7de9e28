"""`manage.py run_deliveries`: the process that sends webhooks."""

import signal
from typing import Any

from django.core.management.base import BaseCommand

from builds.webhooks.sender import Sender


class Command(BaseCommand):
    help = "Sends webhooks until SIGTERM or SIGINT. Several processes share the work."

    def handle(self, *args: Any, **options: Any) -> None:
        sender = Sender()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sender.stop())
        sender.run()
