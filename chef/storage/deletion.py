"""Deletes stored bytes, in batches where the store supports it."""

import contextlib
from collections.abc import Iterable

from django.core.files.storage import default_storage


def discard_keys(keys: Iterable[str]) -> None:
    """Delete stored bytes; missing keys are not an error."""
    if delete_many := getattr(default_storage, "delete_many", None):  # a remote store: one request for many
        with contextlib.suppress(OSError):
            delete_many(keys)
        return
    for key in keys:
        with contextlib.suppress(OSError):
            default_storage.delete(key)
