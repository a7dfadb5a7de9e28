"""A project's settings: name, build strategy, environment, webhooks, and deleting it."""

from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from builds import actions
from builds.models import RESULT_EVENTS, WebhookEndpoint
from builds.pages.access import own_project, visible_projects
from builds.pages.forms import NameForm, StrategyForm, VariableForm, WebhookForm
from builds.pages.one_time_secrets import no_store, show_once
from builds.pages.refusals import refusals_in, refusals_shown
from builds.webhooks import guard
from builds.webhooks.endpoints import create_endpoint
from projects.environment import environment_document
from projects.models import Project

_WEBHOOKS_SHOWN = 100
# Each form's anchor and title on the page. No form posts to its anchor: browsers keep the fragment for the next page,
# and a page with a fragment cannot reload itself by meta refresh.
_ANCHORS = {
    "rename": ("name", "Name"),
    "set": ("environment", "Environment"),
    "strategy": ("strategy", "How it is built"),
    "webhook": ("webhooks", "Webhooks"),
    "delete": ("delete", "Delete the project"),
}
Answer = HttpResponse | None  # None: the form is shown again, with its errors


class _Page:
    """The forms of the page: the one that was sent is bound, the others show the current state."""

    def __init__(self, request: HttpRequest, project: Project) -> None:
        self.request, self.project = request, project
        self.by = cast(User, request.user)
        self.do = request.POST.get("do", "") if request.method == "POST" else ""
        revision = project.revisions.order_by("-number").only("strategy", "number", "project").first()
        used = project.builds.filter(plan__isnull=False).order_by("-number").values_list("plan", flat=True).first()
        strategy = dict(revision.strategy) if revision else {}
        self.revision = revision
        self.rename = self._form(NameForm, "rename", initial={"name": project.name})
        self.strategy = self._form(StrategyForm, "strategy", plan=used, before=strategy)
        self.variable = self._form(VariableForm, "set", auto_id="variable_%s")
        events = [event.value for event in RESULT_EVENTS]
        self.webhook = self._form(WebhookForm, "webhook", auto_id="webhook_%s", initial={"events": events})
        self.delete = self._form(NameForm, "delete", auto_id="delete_%s")

    def _form(self, kind: type[Any], do: str, **options: Any) -> Any:
        return kind(self.request.POST if self.do == do else None, **options)

    @property
    def refused(self) -> tuple[str, str] | None:
        """(anchor, title) of the form whose POST was refused; None if there is none."""
        return _ANCHORS.get(self.do)

    def answer(self) -> Answer:
        """Do what the POST asks for."""
        does: dict[str, Callable[[], Answer]] = {
            "rename": self._rename,
            "strategy": self._change_strategy,
            "set": self._set,
            "remove": self._remove,
            "webhook": self._add_webhook,
            "delete": self._delete,
        }
        return does[self.do]() if self.do in does else self._back()

    def _back(self, message: str = "", anchor: str = "") -> HttpResponse:
        if message:
            messages.success(self.request, message)
        return redirect(reverse("project-settings", args=[self.project.pk]) + anchor)

    def _rename(self) -> Answer:
        if not self.rename.is_valid():
            return None
        actions.change_project(self.project, name=self.rename.cleaned_data["name"])
        return self._back("The project has its new name.")

    def _change_strategy(self) -> Answer:
        if not self.strategy.is_valid():
            return None
        with refusals_in(self.strategy):
            build = actions.change_strategy(self.project, self.strategy.strategy(), by=self.by)
            messages.success(self.request, "The same files are built in the new way, as a new revision.")
            return redirect("build-page", pk=build.pk)
        return None

    def _set(self) -> Answer:
        if not self.variable.is_valid():
            return None
        env, secrets = self.variable.changes()
        with refusals_in(self.variable):
            actions.change_project(self.project, env=env, secrets=secrets)
            return self._back(f"{next(iter(env | secrets))} is set, from the next build on.", "#environment")
        return None

    def _remove(self) -> Answer:
        name = self.request.POST.get("name", "")
        actions.change_project(self.project, env={name: None})
        actions.change_project(self.project, secrets={name: None})
        return self._back(f"{name} is removed, from the next build on.", "#environment")

    def _add_webhook(self) -> Answer:
        if not self.webhook.is_valid():
            return None
        url = self.webhook.cleaned_data["url"]
        with refusals_in(self.webhook):
            # The host is resolved before anything is written: a transaction must not wait for DNS.
            if refusal := guard.refusal_when_saved(url):
                raise refusal
            events = self.webhook.cleaned_data["events"]
            endpoint, secret = create_endpoint(by=self.by, url=url, events=events, project=self.project)
            show_once(self.request, secret, about=endpoint.pk)
            messages.success(self.request, "The webhook is on.")
            return redirect("project-webhook", pk=self.project.pk, webhook=endpoint.pk)
        return None

    def _delete(self) -> Answer:
        if not self.delete.is_valid():
            return None
        if self.delete.cleaned_data["name"] != self.project.name.strip():
            self.delete.add_error("name", "This is not the project's name: type it as it stands above.")
            return None
        actions.delete_project(self.project, by=self.by)
        messages.success(self.request, f"{self.project.name} is deleted.")
        return redirect("home")


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
@refusals_shown()
def project_settings(request: HttpRequest, pk: UUID) -> HttpResponse:
    """All settings, each in its own form; `do` names the form of a POST."""
    if request.method == "POST":
        page = _Page(request, own_project(request, pk))
        if answer := page.answer():
            return answer
    else:
        page = _Page(request, get_object_or_404(visible_projects(request).select_related("owner"), pk=pk))
    project = page.project
    context = {
        "tab": "settings",
        "project": project,
        "page": page,
        "is_owner": project.owner_id == request.user.pk,
        "environment": environment_document(project),
        "webhooks": WebhookEndpoint.objects.filter(project=project)[:_WEBHOOKS_SHOWN],
    }
    # The form shows what was typed again, including a secret.
    return no_store(render(request, "projects/settings.html", context, status=422 if request.method == "POST" else 200))
