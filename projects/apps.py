"""What is built: projects, their revisions and who owns them."""

from django.apps import AppConfig


class ProjectsConfig(AppConfig):
    name = "projects"
