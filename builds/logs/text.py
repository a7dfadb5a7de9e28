"""A log as one text, of which any range can be read without holding the whole in memory."""

import hashlib
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any

from asgiref.sync import sync_to_async
from django.db.models import Func, IntegerField

from builds.logs.entries import chunks_of
from builds.models import Build
from chef.text.ansi import plain
from chef.web.downloads import Content

_PIECE_BYTES = 256 * 1024  # read and sent at once, plus the rest of the last chunk


class ByteLength(Func):
    """The length of a text in UTF-8."""

    function = "OCTET_LENGTH"
    output_field = IntegerField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        # SQLite has octet_length only from 3.43 on.
        return self.as_sql(compiler, connection, template="LENGTH(CAST(%(expressions)s AS BLOB))", **context)


def log_text(build: Build, *, without_colours: bool = False) -> Content:
    """The text of the build's current attempt so far, as UTF-8. Its ETag changes as the log grows."""
    sizes = dict(chunks_of(build).values_list("sequence", ByteLength("text")))
    if without_colours:  # the length without colours is only known from the text itself
        whole = _pieces(sizes, 0, sum(sizes.values()))
        sizes = {sequence: len(plain(text).encode()) for _, *place in whole for sequence, text in _texts(build, *place)}
    state = f"{build.pk} {build.fence} {max(sizes, default=0)} {without_colours}"

    def piece(first: int, last: int) -> bytes:
        texts = (text for _, text in _texts(build, first, last))
        return b"".join(plain(text).encode() if without_colours else text.encode() for text in texts)

    async def read(start: int, length: int) -> AsyncGenerator[bytes]:
        end = start + length
        for offset, first, last in _pieces(sizes, start, end):
            text = await sync_to_async(piece)(first, last)
            yield text[max(start - offset, 0) : end - offset]

    etag = hashlib.sha256(state.encode()).hexdigest()[:32]
    return Content(sum(sizes.values()), "text/plain; charset=utf-8", etag, read)


def _pieces(sizes: Mapping[int, int], start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(offset, first sequence, last sequence) of the pieces that contain the bytes from `start` to `end`.

    `sizes` are the bytes of each chunk by its sequence, in order.
    """
    offset, begun = 0, None
    for sequence, size in sizes.items():
        if offset + size > start and offset < end:
            begun = begun or (offset, sequence)
            last = sequence
            if offset + size - begun[0] >= _PIECE_BYTES:
                yield *begun, last
                begun = None
        offset += size
    if begun:
        yield *begun, last


def _texts(build: Build, first: int, last: int) -> Iterator[tuple[int, str]]:
    """(sequence, text) of the chunks from one sequence number to another."""
    yield from chunks_of(build).filter(sequence__range=(first, last)).values_list("sequence", "text")
