"""How it is built: the queue, the sandbox, logs, artifacts and verdicts."""

from django.apps import AppConfig


class BuildsConfig(AppConfig):
    name = "builds"

    def ready(self) -> None:
        from builds import checks  # noqa: F401  (registers the system checks)
