"""Pages of a project: making one, its overview, builds and releases."""
