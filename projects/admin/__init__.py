"""Admin pages for generations, tokens and users, and the base classes of all admin pages."""

from projects.admin import records  # noqa: F401  (registers the pages)
