"""`manage.py reseal_environment`: seal every variable with the newest key, so that older keys can be taken away."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from projects.models import EnvironmentVariable
from projects.sealing import Unreadable, reseal


class Command(BaseCommand):
    help = "Seals every project's variables with the first key of CHEF_SECRETS_KEY, or with SECRET_KEY."

    def handle(self, *args: Any, **options: Any) -> None:
        done, lost = 0, []
        for variable in EnvironmentVariable.objects.order_by("pk").iterator():
            try:
                resealed = reseal(variable.sealed_value)
            except Unreadable:
                lost.append(f"{variable.name} of project {variable.project_id}")
                continue
            # Only what was read is replaced: a value that was set meanwhile is under the newest key already.
            same = EnvironmentVariable.objects.filter(pk=variable.pk, sealed_value=variable.sealed_value)
            done += same.update(sealed_value=resealed)
        self.stdout.write(f"{done:,} variables are sealed with the newest key.")
        if lost:
            raise CommandError(f"No key opens these, so their owners must set them again: {'; '.join(lost)}.")
