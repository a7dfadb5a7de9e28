"""Actions on endpoints: create, change, rotate, disable and enable. API, pages, admin and the sender call these."""

import logging
from datetime import timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.mail import send_mail
from django.db import IntegrityError, transaction
from django.utils import timezone

from builds.models import RESULT_EVENTS, Delivery, WebhookEndpoint
from builds.webhooks.messages import new_secret
from chef.refusals import RefusalError
from chef.storage.sealing import WEBHOOKS, UnsealError, seal, unseal
from projects.models import Project

logger = logging.getLogger(__name__)

Origin, Reason = WebhookEndpoint.Origin, WebhookEndpoint.Reason
BOTH_VALID = timedelta(hours=24)


class TooManyEndpointsError(RefusalError):
    """The owner has reached the limit of endpoints."""

    code = "too_many_webhooks"

    def __init__(self) -> None:
        super().__init__(
            f"You have {settings.OWNER_MAX_WEBHOOKS:,} webhooks, the limit for one owner: delete one that you no "
            "longer need, or let one of them receive the events of all your projects."
        )


class UnknownEndpointError(RefusalError):
    """The endpoint has just been deleted."""

    code, status = "not_found", 404

    def __init__(self) -> None:
        super().__init__("There is no such webhook.")


class EndpointDisabledError(RefusalError):
    """The endpoint is switched off: nothing is sent to it."""

    code = "webhook_disabled"

    def __init__(self, endpoint: WebhookEndpoint) -> None:
        why = endpoint.get_disabled_reason_display()
        super().__init__(f'The webhook is switched off ({why}): switch it on with {{"active": true}} first.')


def create_endpoint(*, by: User, url: str, events: list[str], project: Project | None) -> tuple[WebhookEndpoint, str]:
    """A new endpoint of an owner, and its secret, which is not shown again. Raises TooManyEndpointsError."""
    with transaction.atomic():
        _make_sure_of_room(by)
        return _create(owner=by, project=project, origin=Origin.API, url=url, events=events)


def create_for_installation(*, url: str, events: list[str]) -> tuple[WebhookEndpoint, str]:
    """A new endpoint for the events of all owners' builds, and its secret."""
    return _create(origin=Origin.STAFF, url=url, events=events)


def _create(**columns: Any) -> tuple[WebhookEndpoint, str]:
    secret = new_secret()
    return WebhookEndpoint.objects.create(sealed_secret=seal(secret, WEBHOOKS), **columns), secret


def _make_sure_of_room(owner: User) -> None:
    User.objects.select_for_update(no_key=True).only("pk").get(pk=owner.pk)  # against two concurrent requests
    if WebhookEndpoint.objects.filter(owner=owner).count() >= settings.OWNER_MAX_WEBHOOKS:
        raise TooManyEndpointsError


def set_project_webhook(project: Project, url: str | None) -> str | None:
    """Set or remove a project's `webhookUrl`, which gets results. Returns the secret if there is a new one.

    Changing the URL keeps the secret and the events; a disabled endpoint is enabled again.
    Raises TooManyEndpointsError.
    """
    with transaction.atomic():
        owner = Project.objects.select_for_update().select_related("owner").get(pk=project.pk).owner
        known = WebhookEndpoint.objects.filter(project=project, origin=Origin.PROJECT).first()
        if url is None:
            if known:
                delete_endpoint(known)
            return None
        if known:
            change_endpoint(known, url=url, active=True)
            return None
        _make_sure_of_room(owner)
        return _create(owner=owner, project=project, origin=Origin.PROJECT, url=url, events=list(RESULT_EVENTS))[1]


def change_endpoint(
    endpoint: WebhookEndpoint,
    *,
    url: str | None = None,
    events: list[str] | None = None,
    active: bool | None = None,
    reason: WebhookEndpoint.Reason = Reason.OWNER,
) -> WebhookEndpoint:
    """Change the given fields. `reason`: why it is disabled, if it is."""
    with transaction.atomic():
        locked = _locked(endpoint)
        if url is not None and url != locked.url:
            locked.url, locked.failing_since = url, None  # a new receiver has no failures yet
        locked.events = events if events is not None else locked.events
        if active is False:
            switch_off(locked, reason)
        elif active and not locked.is_active:
            locked.disabled_at, locked.disabled_reason, locked.failing_since = None, "", None
        locked.save()
    return locked


def rotate_secret(endpoint: WebhookEndpoint, *, secret: str | None = None) -> tuple[WebhookEndpoint, str]:
    """Set a new secret, generated or given. The old one also signs for a day, so that receivers can switch over."""
    with transaction.atomic():
        locked = _locked(endpoint)
        locked.previous_sealed_secret = locked.sealed_secret
        locked.previous_valid_until = timezone.now() + BOTH_VALID
        secret = secret or new_secret()
        locked.sealed_secret = seal(secret, WEBHOOKS)
        locked.save()
    return locked, secret


def delete_endpoint(endpoint: WebhookEndpoint) -> None:
    with transaction.atomic():
        _locked(endpoint).delete()


def delete_endpoints_of(project: Project) -> None:
    """Endpoints of this project only, in the order in which senders lock."""
    for endpoint in project.webhooks.order_by("pk"):
        delete_endpoint(endpoint)


def _locked(endpoint: WebhookEndpoint) -> WebhookEndpoint:
    """The endpoint, read again and locked. Raises UnknownEndpointError when it is gone."""
    locked = WebhookEndpoint.objects.locked(endpoint.pk)
    if locked is None:
        raise UnknownEndpointError
    return locked


def keys_of(endpoint: WebhookEndpoint) -> list[str]:
    """The secrets that sign its messages now. Raises UnsealError."""
    sealed = [endpoint.sealed_secret]
    if endpoint.previous_valid_until and endpoint.previous_valid_until > timezone.now():
        sealed.append(endpoint.previous_sealed_secret)
    return [unseal(text, WEBHOOKS) for text in sealed]


# --- Switching off -----------------------------------------------------------------------------------------------


def switch_off(endpoint: WebhookEndpoint, reason: WebhookEndpoint.Reason) -> None:
    """Disable an endpoint, which the caller has locked and will save; its owner is notified unless they did it.

    Waiting deliveries are given up; they can be replayed once the endpoint is enabled again.
    """
    if not endpoint.is_active:
        return
    now = timezone.now()
    endpoint.disabled_at, endpoint.disabled_reason = now, reason
    waiting = Delivery.objects.filter(endpoint=endpoint, status=Delivery.Status.PENDING)
    waiting.update(status=Delivery.Status.FAILED, finished_at=now, lease_expires_at=None)
    logger.warning("webhook %s is disabled: %s", endpoint.pk, reason.label)
    if reason != Reason.OWNER and endpoint.owner and endpoint.owner.email:
        transaction.on_commit(partial(_tell_owner, endpoint.owner.email, endpoint.url, reason))


def _tell_owner(address: str, url: str, reason: WebhookEndpoint.Reason) -> None:
    text = (
        f"Chef no longer sends messages to your webhook\n\n    {url}\n\nbecause {reason.label}.\n\n"
        'Once it works again, enable it with PATCH /v1/webhooks/{id} and {"active": true}. To send what it has '
        "missed, call POST /v1/webhooks/{id}/replay.\n"
    )
    try:
        send_mail("Your webhook has been disabled", text, None, [address])
    except OSError as fault:  # smtplib's exceptions are OSErrors too
        logger.warning("the owner of a webhook could not be notified: %s", fault)


# --- The endpoint that is made from settings -----------------------------------------------------------------------


def follow_settings() -> None:
    """Create or update the endpoint of CONVEX_URL from the settings. Safe in concurrent processes."""
    try:
        with transaction.atomic():
            known = WebhookEndpoint.objects.filter(origin=Origin.SETTING).first()
            if known is None and settings.CONVEX_URL:
                _create_from_settings()
                return
    except IntegrityError:  # another process was first
        known = WebhookEndpoint.objects.get(origin=Origin.SETTING)
    if known is not None:
        _adapt(known)


def _create_from_settings() -> None:
    WebhookEndpoint.objects.create(
        origin=Origin.SETTING,
        url=settings.CONVEX_URL,
        events=list(RESULT_EVENTS),
        sealed_secret=seal(settings.CONVEX_WEBHOOK_SECRET, WEBHOOKS),
    )


def _adapt(endpoint: WebhookEndpoint) -> None:
    with transaction.atomic():
        locked = _locked(endpoint)
        if not settings.CONVEX_URL:
            change_endpoint(locked, active=False, reason=Reason.SETTING)
            return
        if _secret_of(locked) != settings.CONVEX_WEBHOOK_SECRET:
            rotate_secret(locked, secret=settings.CONVEX_WEBHOOK_SECRET)
        # If staff or its receiver disabled it, it stays disabled until the URL changes.
        is_other = locked.url != settings.CONVEX_URL or locked.disabled_reason == Reason.SETTING
        if is_other:
            change_endpoint(locked, url=settings.CONVEX_URL, active=True)


def _secret_of(endpoint: WebhookEndpoint) -> str:
    try:
        return unseal(endpoint.sealed_secret, WEBHOOKS)
    except UnsealError:
        return ""
