"""A log as one text: any range matches the whole."""

from typing import Any

import pytest
from asgiref.sync import async_to_sync

from builds.logs import text as log_text
from builds.models import Build, LogChunk
from chef.text.ansi import plain
from chef.web.downloads import Content

LINES = [f"\x1b[3{number % 8}mé {number:02d} {'x' * (number % 9)}\x1b[0m\n" for number in range(40)] + ["", "end"]


@pytest.fixture
def build(queue_build: Any) -> Build:
    build: Build = queue_build()
    row = {"build": build, "attempt": 0, "phase": "build", "stream": "stdout", "timestamp": build.created_at}
    # Sequence numbers have gaps where an attempt could not write.
    LogChunk.objects.bulk_create(LogChunk(sequence=2 * n + 1, text=text, **row) for n, text in enumerate(LINES))
    LogChunk.objects.create(**{**row, "attempt": 1, "sequence": 4, "text": "of another attempt"})
    return build


def read(content: Content, start: int, length: int) -> list[bytes]:
    async def pieces() -> list[bytes]:
        return [piece async for piece in content.read(start, length)]

    return async_to_sync(pieces)()


@pytest.mark.parametrize("without_colours", [False, True])
@pytest.mark.parametrize("piece_bytes", [1, 50, 10_000])
def test_any_range_matches_the_whole_text(
    build: Build, monkeypatch: pytest.MonkeyPatch, piece_bytes: int, without_colours: bool
) -> None:
    monkeypatch.setattr(log_text, "_PIECE_BYTES", piece_bytes)
    text = "".join(LINES)
    whole = (plain(text) if without_colours else text).encode()

    content = log_text.log_text(build, without_colours=without_colours)

    assert content.size == len(whole)
    assert b"".join(read(content, 0, content.size)) == whole
    for start in range(0, len(whole), 37):
        for length in (1, 36, 200):
            assert b"".join(read(content, start, length)) == whole[start : start + length]


def test_pieces_are_of_bounded_size(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_text, "_PIECE_BYTES", 100)

    pieces = read(log_text.log_text(build), 0, 10_000)

    assert len(pieces) > 5
    assert max(map(len, pieces)) < 100 + max(len(line.encode()) for line in LINES)


def test_a_range_is_read_without_the_rest(build: Build, django_assert_num_queries: Any) -> None:
    content = log_text.log_text(build)

    with django_assert_num_queries(1) as queries:
        read(content, content.size - 3, 3)

    [query] = queries.captured_queries
    assert str(2 * LINES.index("end") + 1) in query["sql"]


def test_a_missing_log_is_an_empty_text(queue_build: Any) -> None:
    content = log_text.log_text(queue_build())

    assert (content.size, read(content, 0, 0)) == (0, [])
