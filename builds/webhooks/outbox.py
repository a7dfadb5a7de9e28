"""The outbox: each change of a build's status becomes a delivery to each subscribed endpoint.

An event is marked and its deliveries are created in one transaction, so a crash neither loses nor repeats it. Unmarked
events are found by the mark, not by the last number: PostgreSQL may commit numbers out of order.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from builds.models import EVENT_NAMES, TEST_EVENT, BuildEvent, Delivery, WebhookEndpoint
from builds.webhooks.endpoints import EndpointDisabledError
from builds.webhooks.messages import body_of, test_body
from chef.jobs.pubsub import publish_change
from projects.models import Project

AT_ONCE = 200
MISSED_AT_ONCE = 5_000
_FORGOTTEN_AT_ONCE = 1_000


def tell_events() -> int:
    """Create deliveries for new events. Returns how many events: AT_ONCE when there may be more."""
    untold = BuildEvent.objects.filter(kind=BuildEvent.Kind.STATUS, is_told=False)
    if not untold.exists():
        return 0
    return _tell(untold)


def tell_of(project: Project) -> None:
    """The same, immediately, for a project whose builds are about to be deleted, in the caller's transaction."""
    while _tell(BuildEvent.objects.filter(kind=BuildEvent.Kind.STATUS, is_told=False, build__project=project)):
        pass


@transaction.atomic
def _tell(untold: QuerySet[BuildEvent]) -> int:
    # Locked in order of their numbers, so that one build's events cannot overtake one that another process is
    # handling.
    events = list(_with_builds(untold.select_for_update(of=("self",))).order_by("pk")[:AT_ONCE])
    Delivery.objects.bulk_create(_deliveries(events), ignore_conflicts=True)
    BuildEvent.objects.filter(pk__in=[event.pk for event in events]).update(is_told=True)
    return len(events)


def _with_builds(events: QuerySet[BuildEvent]) -> QuerySet[BuildEvent]:
    rows = events.select_related("build__project", "build__revision")
    return rows.defer("build__plan", "build__egress", "build__usage", "build__revision__strategy")


def _deliveries(events: Sequence[BuildEvent]) -> list[Delivery]:
    now = timezone.now()
    by_owner: dict[int | None, list[WebhookEndpoint]] = defaultdict(list)
    owners = {event.build.owner_id for event in events}
    wanting = WebhookEndpoint.objects.active().filter(Q(owner=None) | Q(owner__in=owners))
    for endpoint in wanting.order_by("created_at"):
        by_owner[endpoint.owner_id].append(endpoint)
    made = []
    for event in events:
        listening = [each for each in by_owner[None] + by_owner[event.build.owner_id] if each.wants(event)]
        body = body_of(event) if listening else b""
        made += [_delivery(endpoint, event, body, now) for endpoint in listening]
    return made


def _delivery(endpoint: WebhookEndpoint, event: BuildEvent, body: bytes, now: datetime) -> Delivery:
    return Delivery(
        endpoint=endpoint,
        name=EVENT_NAMES[event.to_status],
        job_id=event.build_id,
        position=event.pk,
        body=body,
        created_at=now,
        next_try_at=now,
        give_up_at=give_up_time(now),
    )


def give_up_time(now: datetime) -> datetime:
    return now + timedelta(hours=settings.WEBHOOK_RETRY_HOURS)


# --- What is sent because somebody asks for it -----------------------------------------------------------------------


def send_test(endpoint: WebhookEndpoint) -> Delivery:
    """A test message. Raises EndpointDisabledError."""
    if not endpoint.is_active:
        raise EndpointDisabledError(endpoint)
    delivery = Delivery.objects.create(
        endpoint=endpoint, name=TEST_EVENT, body=test_body(endpoint.pk), give_up_at=give_up_time(timezone.now())
    )
    transaction.on_commit(partial(publish_change, delivery.pk))
    return delivery


def replay(endpoint: WebhookEndpoint, deliveries: QuerySet[Delivery]) -> int:
    """Send these of the endpoint's deliveries again: same ids, same bytes, with a fresh time limit.

    Deliveries that a sender is sending right now are skipped. Returns how many. Raises EndpointDisabledError.
    """
    with transaction.atomic():
        locked, now = _active(endpoint), timezone.now()
        count = deliveries.filter(endpoint=locked, lease_expires_at=None).update(
            status=Delivery.Status.PENDING,
            is_untried=True,
            next_try_at=now,
            give_up_at=give_up_time(now),
            finished_at=None,
        )
        transaction.on_commit(partial(publish_change, endpoint.pk))
    return count


def tell_missed(endpoint: WebhookEndpoint, begin: datetime, end: datetime) -> int:
    """Create the deliveries of a period in which the endpoint was disabled or not subscribed.

    Existing deliveries are not created again: they can be replayed. Returns how many: MISSED_AT_ONCE when there may
    be more. Raises EndpointDisabledError.
    """
    kept_since = timezone.now() - timedelta(days=settings.WEBHOOK_KEEP_DAYS)
    had = Delivery.objects.filter(endpoint=endpoint, position__gt=0, position=OuterRef("pk"))
    missed = BuildEvent.objects.filter(
        ~Exists(had),
        kind=BuildEvent.Kind.STATUS,
        is_told=True,
        to_status__in=[status for status, name in EVENT_NAMES.items() if name in endpoint.events],
        created_at__gte=max(begin, endpoint.created_at, kept_since),
        created_at__lte=end,
    )
    if endpoint.owner_id:
        missed = missed.filter(build__owner=endpoint.owner_id)
    if endpoint.project_id:
        missed = missed.filter(build__project=endpoint.project_id)
    count = 0
    while count < MISSED_AT_ONCE and (made := _tell_some(endpoint, missed)):
        count += made
    return count


def _tell_some(endpoint: WebhookEndpoint, missed: QuerySet[BuildEvent]) -> int:
    with transaction.atomic():
        _active(endpoint)
        events, now = list(_with_builds(missed).order_by("pk")[:AT_ONCE]), timezone.now()
        made = [_delivery(endpoint, event, body_of(event), now) for event in events]
        Delivery.objects.bulk_create(made, ignore_conflicts=True)
        transaction.on_commit(partial(publish_change, endpoint.pk))
    return len(made)


def _active(endpoint: WebhookEndpoint) -> WebhookEndpoint:
    """The endpoint, locked so that it cannot be disabled meanwhile. Raises EndpointDisabledError."""
    locked = WebhookEndpoint.objects.locked(endpoint.pk)
    if locked is None or not locked.is_active:
        raise EndpointDisabledError(locked or endpoint)
    return locked


def forget_old() -> int:
    """Delete old finished deliveries and their tries, a batch at a time. Returns how many."""
    oldest = timezone.now() - timedelta(days=settings.WEBHOOK_KEEP_DAYS)
    old = Delivery.objects.filter(finished_at__lt=oldest).order_by("finished_at").values("pk")[:_FORGOTTEN_AT_ONCE]
    return Delivery.objects.filter(pk__in=list(old.values_list("pk", flat=True))).delete()[0]
