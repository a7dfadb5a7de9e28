"""Building projects: the queue, the sandbox, logs, artifacts and verdicts."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class BuildsConfig(AppConfig):
    name = "builds"

    def ready(self) -> None:
        from builds import checks  # noqa: F401  (registers the system checks)
        from builds.operations.roles import set_roles
        from builds.runtimes.catalogue import RUNTIMES
        from projects.environment import reserve

        for runtime in RUNTIMES.values():
            for reason, pattern in runtime.reserved_variables.items():
                reserve(pattern, reason)
        # After Django's own receiver, which creates the permissions of this app, the last one.
        post_migrate.connect(set_roles, sender=self)
