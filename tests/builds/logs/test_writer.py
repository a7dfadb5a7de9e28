"""The log writer: any bytes, in any amount, split in any way."""

from collections.abc import Callable

import pytest
from pytest_django import Settings

from builds.logs.writer import LogWriter
from builds.models import Build, LogChunk
from builds.queue.claims import BuildLease, claim
from chef.jobs.leases import LeaseLostError

MIB = 1024**2


@pytest.fixture
def lease(queue_build: Callable[..., Build], settings: Settings) -> BuildLease:
    queue_build()
    lease = claim("worker")
    assert lease
    return lease


def stored(stream: str = "stdout") -> str:
    return "".join(LogChunk.objects.filter(stream=stream).order_by("sequence").values_list("text", flat=True))


def write(lease: BuildLease, *parts: bytes, stream: str = "stdout", max_bytes: int = MIB) -> list[str]:
    """Write one phase without the regular flusher; returns the lines that were passed on."""
    lines: list[str] = []
    log = LogWriter(lease, max_bytes=max_bytes)
    log.start_phase("build", lambda line, _: lines.append(line))
    for part in parts:
        log.write(stream, part)
    log.end_phase()
    return lines


def test_characters_split_across_reads_are_whole(lease: BuildLease) -> None:
    data = "naïve 🍳 café\n".encode()

    lines = write(lease, *(data[i : i + 1] for i in range(len(data))))

    assert stored() == "naïve 🍳 café\n"
    assert lines == ["naïve 🍳 café"]


def test_invalid_bytes_and_nul_are_replaced(lease: BuildLease) -> None:
    write(lease, b"a\xff\xfeb\x00c\n", b"\xe2\x82")

    assert stored() == "a\ufffd\ufffdbc\n\ufffd"


def test_an_escape_sequence_split_across_reads_is_still_stripped(lease: BuildLease) -> None:
    write(lease, b"a\x1b", b"[2", b"Jb\n")

    assert stored() == "ab\n"


def test_streams_keep_their_order(lease: BuildLease) -> None:
    log = LogWriter(lease, max_bytes=MIB)
    log.start_phase("build")
    log.write("stdout", b"1\n")
    log.write("stderr", b"2\n")
    log.write("stdout", b"3\n")
    log.end_phase()

    assert list(LogChunk.objects.values_list("sequence", "stream", "text")) == [
        (1, "stdout", "1\n"),
        (2, "stderr", "2\n"),
        (3, "stdout", "3\n"),
    ]


def test_an_endless_line_is_stored_in_chunks_of_bounded_size(lease: BuildLease) -> None:
    write(lease, *[b"x" * 50_000] * 20, max_bytes=8 * MIB)

    assert stored() == "x" * 1_000_000
    assert max(len(chunk.text) for chunk in LogChunk.objects.all()) <= 100_000


def test_beyond_the_limit_beginning_and_end_are_kept_with_a_marker_between(lease: BuildLease) -> None:
    numbered = [f"{number:06d} {'x' * 92}\n".encode() for number in range(40_000)]

    lines = write(lease, *numbered, max_bytes=2 * MIB)

    text = stored()
    numbers = [int(line[:6]) for line in text.splitlines()]
    assert numbers == sorted(numbers)
    assert (numbers[0], numbers[-1]) == (0, 39_999)
    assert len(text) < 1.1 * MIB
    [mark] = LogChunk.objects.filter(stream="system").values_list("text", flat=True)
    left_out = int(mark.split()[1].replace(",", ""))
    assert left_out == 4_000_000 - len(text)
    assert Build.objects.get().log_truncated
    assert len(lines) == 40_000  # evidence is searched for in all of it


def test_a_full_phase_leaves_room_for_the_next_one(lease: BuildLease) -> None:
    log = LogWriter(lease, max_bytes=2 * MIB)
    for phase in ("installation", "build"):
        log.start_phase(phase)
        for _ in range(40):
            log.write("stdout", b"y" * 99_999 + b"\n")
        log.write("stdout", f"end of {phase}\n".encode())
        log.end_phase()

    kept = LogChunk.objects.filter(phase="build", stream="stdout")
    assert "".join(kept.values_list("text", flat=True)).endswith("end of build\n")
    assert sum(len(chunk.text) for chunk in kept) > 0.7 * MIB


def test_an_attempt_that_lost_its_lease_stores_nothing(lease: BuildLease) -> None:
    Build.objects.update(fence=7)

    with pytest.raises(LeaseLostError):
        write(lease, b"late\n")

    assert not LogChunk.objects.exists()


def test_size_and_text_are_recorded(lease: BuildLease) -> None:
    write(lease, "é\n".encode())

    assert Build.objects.get().log_bytes == 3
