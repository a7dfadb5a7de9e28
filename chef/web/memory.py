"""Memory of the web process: what a large request has used is given back to the machine when the request is over.

`mallopt` and `malloc_trim` are documented functions of glibc, which Python does not offer; other C libraries have
neither, and keep less. No other way measured gives as much back. The benchmark `uploads`, 5 projects of 20 MiB one
after the other; MiB of the web process above idle, at most and a second after the last:

    | JSON      | JSON, an emoji in each file | tar.gz   |
    | --------- | --------------------------- | -------- |
    |  65,   2  | 123,   0                    |  28,   0 | this module
    | 207, 192  | 430, 416                    |  92,  92 | nothing
    | 159, 137  | 338, 317                    | 103, 103 | only garbage collection when the request is over
    |  65,  43  | 124, 102                    |  27,  23 | that, and glibc's variables for one arena and large blocks

See docs/decisions/memory-of-the-web-process.md.
"""

import ctypes
import gc

_libc = ctypes.CDLL(None)
_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE_BLOCK = 256 * 1024


def settle() -> None:
    """Call it once all code is loaded: later collections pass over what is there now, code and classes, which stay."""
    if hasattr(_libc, "mallopt"):
        # Larger blocks go back as soon as they are freed. By itself, glibc raises the threshold with time.
        _libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Free what only reference cycles hold, and return what is free. Takes milliseconds when `settle` was called."""
    gc.collect()  # requests and serializers refer to each other, and to what was sent
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)  # glibc keeps what a thread has freed for later threads; each request has its own
