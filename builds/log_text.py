"""A log as one text, of which any part can be had, without ever holding the whole."""

import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from functools import partial

from asgiref.sync import sync_to_async

from builds.models import Build, LogChunk
from chef.downloads import Content

_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
_ROWS = 100


def log_text(build: Build, *, without_colours: bool = False) -> Content:
    """The text of the build's current attempt so far, as UTF-8. Its ETag changes with what has been written."""
    sizes = {sequence: len(text) for sequence, text in _texts(build, 0, without_colours)}
    state = f"{build.pk} {build.fence} {max(sizes, default=0)} {without_colours}"

    async def read(start: int, length: int) -> AsyncIterator[bytes]:
        offset, end, after = 0, start + length, 0
        for sequence, size in sizes.items():
            if offset + size > start:
                break
            offset, after = offset + size, sequence
        pieces = _texts(build, after, without_colours)
        following = sync_to_async(partial(next, pieces, None))
        while offset < end and (piece := await following()):
            text = piece[1]
            yield text[max(start - offset, 0) : end - offset]
            offset += len(text)

    etag = hashlib.sha256(state.encode()).hexdigest()[:32]
    return Content(sum(sizes.values()), "text/plain; charset=utf-8", etag, read)


def _texts(build: Build, after: int, without_colours: bool) -> Iterator[tuple[int, bytes]]:
    """(sequence, text) of each chunk after a sequence, a page of rows at a time."""
    while True:
        rows = LogChunk.objects.filter(build=build, attempt=build.fence, sequence__gt=after).order_by("sequence")
        page = list(rows.values_list("sequence", "text")[:_ROWS])
        for sequence, text in page:
            yield sequence, (_COLOURS.sub("", text) if without_colours else text).encode()
        if len(page) < _ROWS:
            return
        after = page[-1][0]
