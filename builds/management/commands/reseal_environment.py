"""`manage.py reseal_environment`: re-encrypts everything with the newest key, so that older ones can be removed."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from builds.models import WebhookEndpoint
from chef.storage.sealing import WEBHOOKS, UnsealError, reseal
from projects.models import EnvironmentVariable


class Command(BaseCommand):
    help = "Re-encrypts projects' variables and webhooks' secrets with the first of CHEF_SECRETS_KEY, or SECRET_KEY."

    def handle(self, *args: Any, **options: Any) -> None:
        variables, lost = _reseal_variables()
        secrets, lost_too = _reseal_webhooks()
        self.stdout.write(f"{variables:,} variables and {secrets:,} webhooks are encrypted with the newest key.")
        if lost + lost_too:
            names = "; ".join(lost + lost_too)
            raise CommandError(f"No key decrypts these, so their owners must set them again: {names}.")


def _reseal_variables() -> tuple[int, list[str]]:
    done, lost = 0, []
    for variable in EnvironmentVariable.objects.order_by("pk").iterator():
        try:
            resealed = reseal(variable.sealed_value)
        except UnsealError:
            lost.append(f"{variable.name} of project {variable.project_id}")
            continue
        # Only replace the value that was read: one set meanwhile is under the newest key already.
        same = EnvironmentVariable.objects.filter(pk=variable.pk, sealed_value=variable.sealed_value)
        done += same.update(sealed_value=resealed)
    return done, lost


def _reseal_webhooks() -> tuple[int, list[str]]:
    done, lost = 0, []
    for endpoint in WebhookEndpoint.objects.select_related("owner").order_by("pk").iterator():
        before = {name: getattr(endpoint, name) for name in ("sealed_secret", "previous_sealed_secret")}
        try:
            after = {name: reseal(sealed, WEBHOOKS) if sealed else "" for name, sealed in before.items()}
        except UnsealError:
            lost.append(f"webhook {endpoint.pk} of {endpoint.owner or 'the installation'}")
            continue
        done += WebhookEndpoint.objects.filter(pk=endpoint.pk, **before).update(**after)
    return done, lost
