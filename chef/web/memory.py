"""Memory of the web process: returns a large request's memory to the system when the request is over.

`mallopt` and `malloc_trim` are documented functions of glibc that Python does not expose; other C libraries have
neither, and retain less. No other measure returned as much. Benchmark `uploads`: 5 projects of 20 MiB in a row; MiB of
the web process above idle, peak and one second after the last:

    | JSON      | JSON, an emoji in each file | tar.gz   |
    | --------- | --------------------------- | -------- |
    |  65,   2  | 123,   0                    |  28,   0 | this module
    | 207, 192  | 430, 416                    |  92,  92 | nothing
    | 159, 137  | 338, 317                    | 103, 103 | only garbage collection after the request
    |  65,  43  | 124, 102                    |  27,  23 | that, and glibc's environment variables

See docs/decisions/memory-of-the-web-process.md.
"""

import ctypes
import gc

_libc = ctypes.CDLL(None)
_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE_BLOCK = 256 * 1024


def settle() -> None:
    """Call once all code is loaded: later garbage collections skip the objects that exist now."""
    if hasattr(_libc, "mallopt"):
        # Larger blocks are returned as soon as they are freed. By default, glibc raises the threshold over time.
        _libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Collect reference cycles and return free memory. Takes milliseconds after `settle`."""
    gc.collect()  # requests and serializers refer to each other, and to the body
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)  # glibc keeps a thread's freed memory for later threads; each request has its own thread
