"""Fair shares: who was served when. Claims of one owner's builds go one after the other, by the owner's row."""

from datetime import datetime, timedelta

from django.utils import timezone

from builds.models import BaseFairShare, ExternalFairShare, FairShare
from chef.jobs.models import TransitionRefusedError


def fair_shares(*, is_external: bool) -> type[BaseFairShare]:
    """The rows of one queue: what external builders take costs nobody a place here."""
    return ExternalFairShare if is_external else FairShare


def serve(shares: type[BaseFairShare], owner: int, *, since: datetime | None) -> None:
    """Note that the owner is served now.

    Raises TransitionRefusedError when that has happened after `since`, which is when the owner was last served as far
    as the claim knows. The row is locked until the claim is committed. Nobody waits for another lock while holding it:
    every claim locks a build that others skip, then this, so claims cannot deadlock.
    """
    now = timezone.now()
    rows = shares._default_manager
    if since is None:
        is_first = rows.get_or_create(owner_id=owner, defaults={"claimed_at": now})[1]
    else:
        # Later than before even where clocks differ: an unchanged time has to mean that nobody was served.
        later = max(now, since + timedelta(microseconds=1))
        is_first = bool(rows.filter(owner=owner, claimed_at=since).update(claimed_at=later))
    if not is_first:
        raise TransitionRefusedError(f"owner {owner} has been served since")
