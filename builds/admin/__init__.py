"""Admin pages for builds, projects, releases and webhooks, and the operations page. Each module registers its own."""

from builds.admin import builds, projects, published, webhooks

__all__ = ["builds", "projects", "published", "webhooks"]
