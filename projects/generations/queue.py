"""Which generation runs next, and what becomes of one whose worker has died. See chef.jobs.models for the rules."""

import logging
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count, Exists, IntegerField, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from chef.jobs.leases import Lease
from chef.jobs.models import JobQuerySet, Status, TransitionRefusedError, backoff
from projects.engine.errors import EngineError
from projects.generations.actions import bell
from projects.models import Generation, Quarantine

logger = logging.getLogger(__name__)


def in_claim_order(now: Any) -> JobQuerySet[Any]:
    """Eligible generations as they are claimed: first whose owner has the fewest running, then by age.

    Those of projects in quarantine are left out.
    """
    running = (
        Generation.objects.filter(owner=OuterRef("owner"), status=Status.RUNNING)
        .order_by()
        .values("owner")
        .annotate(count=Count("pk"))
        .values("count")
    )
    held = Quarantine.objects.filter(project=OuterRef("project"))
    queued = (
        Generation.objects.eligible(now)
        .filter(~Exists(held))
        .annotate(owner_running=Coalesce(Subquery(running, output_field=IntegerField()), 0))
    )
    return queued.order_by("owner_running", "created_at", "pk")


def claim(worker: str) -> Lease[Generation] | None:
    """Take the best eligible generation, or None when there is nothing to do."""
    while True:
        try:
            with transaction.atomic():
                queued = in_claim_order(timezone.now())
                if connection.features.has_select_for_update_skip_locked:
                    queued = queued.select_for_update(skip_locked=True, of=("self",))
                generation = queued.first()
                if generation is None:
                    return None
                generation.start(worker)
                return Lease(generation)
        except TransitionRefusedError:
            continue  # another worker was first: look again


def after_fault(generation: Generation, detail: str) -> tuple[Status, dict[str, Any]]:
    """What an infra fault makes of a running generation: the next status, and the columns that go with it.

    Back to the queue with back-off, where it goes on with what it has; failed when the attempts are spent.
    """
    faults = generation.faults + 1
    if faults >= settings.MAX_ATTEMPTS:
        return Status.FAILED, {"faults": faults, "error": EngineError("attempts_exhausted", detail).as_json()}
    return Status.QUEUED, {"faults": faults, "available_at": timezone.now() + backoff(faults)}


def reap_abandoned() -> int:
    """Take every generation whose lease has run out from its silent worker. Returns how many."""
    reaped = 0
    for generation in Generation.objects.abandoned(timezone.now()):
        silent = f"{generation.worker} was silent for {settings.LEASE_SECONDS:g} s"
        status, changes = after_fault(generation, silent)
        try:
            generation.transition_to(status, **changes)
        except TransitionRefusedError:
            continue  # it spoke at the last moment, or another reaper was first
        reaped += 1
        logger.warning("generation %s: %s; now %s", generation.pk, silent, status)
    return reaped


def ring_for_waiting() -> int:
    """Ring for generations that wait while no bell does. Returns how often."""
    return bell.ring_for(lambda: in_claim_order(timezone.now())[: settings.GENERATION_CONCURRENCY].count())
