"""Pages of a project: creating one, its overview, builds and releases."""
