"""Memory that a large request has used, given back to the machine when the request is over.

Without it, one project of 20 MiB after the other would leave the process larger by that much each time, for a while.
"""

import ctypes
import gc

# glibc keeps what a thread has freed for the threads to come, of which each request is one. musl and macOS do not.
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_back() -> None:
    """Takes some tens of milliseconds, and other threads wait for most of them."""
    gc.collect()  # requests, serializers and what they were given refer to each other in rings
    if _trim is not None:
        _trim(0)
