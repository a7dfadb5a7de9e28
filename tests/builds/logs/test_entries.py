"""The cursor of a log, and the entries after it."""

from collections.abc import Callable

import pytest
from django.utils import timezone

from builds.logs.entries import BEGINNING, Cursor, read_entries
from builds.models import Build, LogChunk
from builds.queue.claims import BuildLease, claim


@pytest.fixture
def lease(queue_build: Callable[..., Build]) -> BuildLease:
    queue_build()
    lease = claim("worker")
    assert lease
    return lease


def store(lease: BuildLease, *sequences: int, phase: str = "build") -> None:
    LogChunk.objects.bulk_create(
        LogChunk(
            build=lease.build,
            attempt=lease.fence,
            sequence=sequence,
            phase=phase,
            stream="stdout",
            timestamp=timezone.now(),
            text=f"line {sequence}\n",
        )
        for sequence in sequences
    )


def test_a_cursor_round_trips() -> None:
    assert Cursor.parse(str(Cursor(3, 40))) == Cursor(3, 40)
    assert Cursor.parse("") == BEGINNING


@pytest.mark.parametrize("text", ["x", "1", "1.", ".2", "1.2.3", "-1.2", "1.2\n", "1.\u0663", "1.1234567890"])
def test_an_invalid_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        Cursor.parse(text)


def test_cursors_are_ordered() -> None:
    assert sorted([Cursor(2, 1), Cursor(1, 10), Cursor(1, 9)]) == [Cursor(1, 9), Cursor(1, 10), Cursor(2, 1)]


@pytest.mark.django_db
def test_entries_after_a_cursor_come_in_order_with_the_next_cursor(lease: BuildLease) -> None:
    store(lease, 1, 2, 5, phase="installation")
    store(lease, 7, 9)

    first, cursor = read_entries(lease.build, limit=2)
    rest, end = read_entries(lease.build, after=cursor)
    built, _ = read_entries(lease.build, after=cursor, phase="build")

    assert ([chunk.sequence for chunk in first], cursor) == ([1, 2], Cursor(1, 2))
    assert ([chunk.sequence for chunk in rest], end) == ([5, 7, 9], Cursor(1, 9))
    assert [chunk.sequence for chunk in built] == [7, 9]
    assert read_entries(lease.build, after=end) == ([], end)


@pytest.mark.django_db
def test_a_cursor_of_another_attempt_starts_at_the_current_attempt_s_beginning(lease: BuildLease) -> None:
    store(lease, 1, 2)

    assert read_entries(lease.build, after=Cursor(7, 2))[1] == Cursor(1, 2)
    assert Cursor(7, 2).in_attempt(1) == Cursor(1, 0)
