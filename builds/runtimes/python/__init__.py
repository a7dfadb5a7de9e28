"""The Python runtime: pip, packages and folders of sources."""
