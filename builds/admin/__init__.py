"""What staff see and do: builds first of all, and how the installation runs. Each module registers its own pages."""

from builds.admin import builds, projects, published, webhooks

__all__ = ["builds", "projects", "published", "webhooks"]
