"""What every store of bytes has in common, wherever it is."""


class StorageError(OSError):
    """The store cannot be reached, or does not do what it should. It may soon be well again."""
