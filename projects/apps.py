"""What is built: projects, revisions, and their owners."""

from django.apps import AppConfig


class ProjectsConfig(AppConfig):
    name = "projects"
