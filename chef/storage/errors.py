"""The error that every remote store raises."""


class StorageError(OSError):
    """The store cannot be reached, or does not work properly. This may be temporary."""
