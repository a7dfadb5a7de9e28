"""The sender process: one thread reads the database, the others speak HTTP and know no database.

The database is the truth: Redis only wakes the sender, and without Redis it polls every second. Any number of senders
may run, and each may be killed at any moment.
"""

import asyncio
import collections
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, close_old_connections
from django.utils import timezone

from builds.heartbeats import Beat
from builds.models import Heartbeat
from builds.webhooks import outbox
from builds.webhooks.deliveries import Done, Outgoing, claim, settle
from builds.webhooks.endpoints import follow_settings
from builds.webhooks.messages import headers_of
from builds.webhooks.transport import Answer, post
from chef.jobs.pubsub import subscribe

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
# The least time between polls, however often it is woken.
_REST_SECONDS = 0.02
_CLEAN_SECONDS = 60.0

Post = Callable[..., Answer]


class Sender:
    def __init__(self) -> None:
        self._is_stopping = False
        self._wake_up = threading.Event()
        self._under_way: dict[UUID, Outgoing] = {}
        self._done: collections.deque[Done] = collections.deque()  # from the threads that send
        self._unsettled: dict[UUID, Done] = {}  # not yet recorded
        self._follows_settings = False
        self._cleaned_at = float("-inf")
        self._beat = Beat(Heartbeat.Service.SENDER)

    def stop(self) -> None:
        """Claim nothing more; run() returns when the current deliveries are sent or have timed out.

        For signal handlers, so it takes no lock: run() notices within a second.
        """
        self._is_stopping = True

    def run(self) -> None:
        threading.Thread(target=self._subscribe, name="subscriber", daemon=True).start()
        with ThreadPoolExecutor(settings.WEBHOOK_CONCURRENCY, thread_name_prefix="sender") as pool:
            while not self._is_stopping:
                self._wake_up.clear()
                self._look_and_survive(pool)
                self._wake_up.wait(LOOK_SECONDS)
                time.sleep(_REST_SECONDS)
        self._settle_the_last()

    def _subscribe(self) -> None:
        """Wake up when a build has changed, and when the subscription is established or lost."""
        asyncio.run(subscribe(lambda _: self._wake_up.set(), lambda _: self._wake_up.set()))

    def _look_and_survive(self, pool: ThreadPoolExecutor) -> None:
        try:
            self.look(pool)
        except DatabaseError as fault:
            logger.warning("the database is not responding: %s", fault)
            close_old_connections()
        except Exception:
            logger.exception("the sender failed once and continues")

    def look(self, pool: ThreadPoolExecutor) -> None:
        """Do everything that is due now, once."""
        self._beat.record()
        if not self._follows_settings:
            follow_settings()
            self._follows_settings = True
        self._settle_done()
        if outbox.tell_events() == outbox.AT_ONCE:
            self._wake_up.set()
        for outgoing in claim(settings.WEBHOOK_CONCURRENCY - len(self._under_way), list(self._under_way.values())):
            self._under_way[outgoing.id] = outgoing
            pool.submit(self._send, outgoing)
        if time.monotonic() - self._cleaned_at > _CLEAN_SECONDS:
            outbox.forget_old()
            self._cleaned_at = time.monotonic()

    def _send(self, outgoing: Outgoing) -> None:
        began = time.monotonic()
        try:
            answer = send(outgoing)
        except Exception as fault:  # a bug must not cost a thread
            logger.exception("a message could not be sent")
            answer = Answer(error="sender_fault", detail=f"{type(fault).__name__}: see the sender's log.")
        self._done.append(Done(outgoing, answer, began, time.monotonic()))
        self._wake_up.set()

    def _settle_done(self) -> None:
        while self._done:
            done = self._done.popleft()
            self._unsettled[done.outgoing.id] = done
        by_endpoint: dict[UUID, list[Done]] = collections.defaultdict(list)
        for done in self._unsettled.values():
            by_endpoint[done.outgoing.endpoint_id].append(done)
        for endpoint_id, all_done in by_endpoint.items():
            if settle(endpoint_id, [done for done in all_done if not done.is_too_late]) < len(all_done):
                logger.warning(
                    "webhook %s: a delivery was sent after its lease had expired, and is sent again", endpoint_id
                )
            # Only after the commit: if the database does not respond, this is retried.
            for done in all_done:
                del self._unsettled[done.outgoing.id], self._under_way[done.outgoing.id]

    def _settle_the_last(self) -> None:
        try:
            self._settle_done()
        except DatabaseError as fault:
            logger.warning("%s deliveries will be sent again: %s", len(self._unsettled), fault)


def send(outgoing: Outgoing, post: Post = post) -> Answer:
    """Sign and send a message, once."""
    if outgoing.keys is None:
        return Answer(error="secret_unreadable", detail="No key of this installation opens the secret: rotate it.")
    headers = headers_of(outgoing.id, outgoing.body, outgoing.keys, now=timezone.now())
    return post(outgoing.url, headers, outgoing.body, seconds=settings.WEBHOOK_TIMEOUT, is_ours=outgoing.is_ours)
