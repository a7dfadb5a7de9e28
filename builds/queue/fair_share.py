"""Fair shares: when each owner was last served. The owner's row serialises claims of that owner's builds."""

from datetime import datetime, timedelta

from django.utils import timezone

from builds.models import BaseFairShare, ExternalFairShare, FairShare
from chef.jobs.models import TransitionRefusedError


def fair_shares(*, is_external: bool) -> type[BaseFairShare]:
    """The rows of one queue: builds for external builders do not count here."""
    return ExternalFairShare if is_external else FairShare


def serve(shares: type[BaseFairShare], owner: int, *, since: datetime | None) -> None:
    """Record that the owner is served now.

    `since`: when the owner was last served, as the claim read it. Raises TransitionRefusedError if the owner has been
    served after that. The row stays locked until the claim is committed. Claims cannot deadlock: each locks a build,
    which others skip, then this row, and waits for no other lock.
    """
    now = timezone.now()
    rows = shares._default_manager
    if since is None:
        is_first = rows.get_or_create(owner_id=owner, defaults={"claimed_at": now})[1]
    else:
        # Always later than before, even if clocks differ: an unchanged time must mean that the owner was not served.
        later = max(now, since + timedelta(microseconds=1))
        is_first = bool(rows.filter(owner=owner, claimed_at=since).update(claimed_at=later))
    if not is_first:
        raise TransitionRefusedError(f"owner {owner} has been served since")
