"""One webhook of a project: on or off, its secret, and its deliveries with every attempt."""

from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from builds.models import Delivery, WebhookEndpoint
from builds.pages.access import own_project, visible_projects
from builds.pages.one_time_secrets import no_store, show_once, shown_once
from builds.pages.paging import page_of
from builds.pages.refusals import refusals_shown
from builds.webhooks import endpoints, outbox

DELIVERIES_SHOWN = 20


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
@refusals_shown()
def project_webhook(request: HttpRequest, pk: UUID, webhook: UUID) -> HttpResponse:
    """The webhook with its deliveries. A POST switches, rotates, tests, replays or deletes it, by `do`."""
    if request.method == "POST":
        endpoint = get_object_or_404(own_project(request, pk).webhooks.all(), pk=webhook)
        return _act(request, endpoint)
    project = get_object_or_404(visible_projects(request).select_related("owner"), pk=pk)
    endpoint = get_object_or_404(project.webhooks.all(), pk=webhook)
    rows = Delivery.objects.filter(endpoint=endpoint).defer("body").prefetch_related("log")
    shown = page_of(request, rows, size=DELIVERIES_SHOWN)
    context = {
        "tab": "settings",
        "project": project,
        "is_owner": project.owner_id == request.user.pk,
        "endpoint": endpoint,
        "deliveries": shown.rows,
        "shown": shown,
        "secret": shown_once(request, about=endpoint.pk),
        "is_live": any(row.status == Delivery.Status.PENDING for row in shown.rows),
    }
    return no_store(render(request, "projects/webhook.html", context))


def _act(request: HttpRequest, endpoint: WebhookEndpoint) -> HttpResponse:
    do = request.POST.get("do", "")
    settings_page = reverse("project-settings", args=[endpoint.project_id])
    if do in ("on", "off"):
        endpoints.change_endpoint(endpoint, active=do == "on")
        messages.success(request, f"The webhook is {do}.")
    elif do == "rotate":
        _, secret = endpoints.rotate_secret(endpoint)
        show_once(request, secret, about=endpoint.pk)
        messages.success(request, "There is a new secret. For a day, the one of before signs too.")
    elif do == "test":
        outbox.send_test(endpoint)
        messages.success(request, "A test message is on its way.")
    elif do == "replay":
        _replay(request, endpoint)
    elif do == "delete":
        endpoints.delete_endpoint(endpoint)
        messages.success(request, "The webhook is deleted.")
        return redirect(f"{settings_page}#webhooks")
    return redirect("project-webhook", pk=endpoint.project_id, webhook=endpoint.pk)


def _replay(request: HttpRequest, endpoint: WebhookEndpoint) -> None:
    try:
        delivery = UUID(request.POST.get("delivery", ""))
    except ValueError:
        delivery = UUID(int=0)
    count = outbox.replay(endpoint, Delivery.objects.filter(endpoint=endpoint, pk=delivery))
    if count:
        messages.success(request, "The message is sent once more: the same id, the same bytes.")
    else:
        messages.warning(request, "The message is being sent just now, or is not kept any more.")
