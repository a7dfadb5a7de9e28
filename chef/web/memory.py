"""Memory of the web process: what a large request has used is given back to the machine when the request is over.

Without this, 20 MiB projects that come one after the other make the process larger by hundreds of megabytes. The
names are glibc's; other C libraries have them not, and keep less.
"""

import ctypes
import gc

_libc = ctypes.CDLL(None)
_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE_BLOCK = 256 * 1024


def settle() -> None:
    """At the end of the start: have later collections pass over what is there now, code and classes, which stay."""
    if hasattr(_libc, "mallopt"):
        # Such blocks go back as soon as they are freed. By itself, glibc comes to put them among the small ones.
        _libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Free what only rings hold, and return all that is free. Takes milliseconds where `settle` came first."""
    gc.collect()  # requests and serializers refer to each other, and to what was sent
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)  # glibc keeps what a thread has freed for later threads; each request has its own
