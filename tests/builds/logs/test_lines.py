"""A log by lines: line numbers for any split into chunks, and the place of evidence."""

from collections.abc import Callable

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from builds.logs.entries import BEGINNING, Cursor
from builds.logs.lines import Line, LogIndex, find_evidence, read_page, utf16_length
from builds.models import Build, LogChunk
from builds.queue.claims import BuildLease, claim
from builds.verdicts.evidence import verdict

Store = Callable[..., Build]


@pytest.fixture
def lease(queue_build: Callable[..., Build]) -> BuildLease:
    queue_build()
    lease = claim("worker")
    assert lease
    return lease


@pytest.fixture
def store(lease: BuildLease) -> Store:
    """Store chunks of the running build, each a text or (text, stream, phase)."""

    def store(*texts: str | tuple[str, str, str]) -> Build:
        each = [(text, "stdout", "build") if isinstance(text, str) else text for text in texts]
        LogChunk.objects.bulk_create(
            LogChunk(
                build=lease.build,
                attempt=lease.fence,
                sequence=3 * number,
                phase=phase,
                stream=stream,
                timestamp=timezone.now(),
                text=text,
            )
            for number, (text, stream, phase) in enumerate(each, 1)
        )
        return lease.build

    return store


def numbered(lines: list[Line]) -> list[tuple[int, str]]:
    return [(line.number, "".join(text for text, _ in line.parts)) for line in lines]


@pytest.mark.parametrize(
    "chunks",
    [
        ["a\nb\nc\n\nd\n"],
        ["a\n", "b\n", "c\n", "\n", "d\n"],
        ["a", "\nb", "\n", "c\n\n", "d", "\n"],
        ["a\nb\nc\n\n", "d"],
        ["", "a\nb\n", "", "c\n\nd\n", ""],
    ],
)
def test_lines_do_not_depend_on_how_the_text_was_split(chunks: list[str], store: Store) -> None:
    index = LogIndex(store(*chunks))
    whole = [(1, "a"), (2, "b"), (3, "c"), (4, ""), (5, "d")]

    assert index.last == 5
    for first in range(1, 6):
        for last in range(first, 7):
            assert numbered(index.lines(first, last)) == whole[first - 1 : last]
    assert index.lines(6, 9) == []


def test_an_empty_log_has_no_lines(store: Store) -> None:
    index = LogIndex(store())

    assert index.last == 0
    assert index.lines(1, 10) == []


def test_a_colour_continues_in_the_next_line_but_not_in_another_stream(store: Store) -> None:
    build = store("\x1b[31mred\nstill", ("chef\n", "system", "build"), "plain\n")

    lines = LogIndex(build).lines(1, 3)

    assert numbered(lines) == [(1, "red"), (2, "stillchef"), (3, "plain")]
    assert [[look.classes for text, look in line.parts if text] for line in lines] == [["f0"], ["f0", ""], [""]]
    assert [line.stream for line in lines] == ["stdout"] * 3


def test_a_few_lines_of_a_long_log_take_two_small_queries(
    store: Store, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    build = store(*(f"line {number}\n" for number in range(1, 3001)))

    with django_assert_num_queries(2):
        lines = LogIndex(build).lines(2000, 2002)

    assert numbered(lines) == [(2000, "line 2000"), (2001, "line 2001"), (2002, "line 2002")]


# --- Evidence ----------------------------------------------------------------------------------------------------


def test_evidence_is_found_where_it_was_first_printed(
    store: Store, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    build = store(
        ("$ src/main.ts(3,5): error TS1: no\n", "system", "build"),
        "begin\n\x1b[31msrc/main.ts(3,5): error\x1b[0m TS1: no\nmore\n",
        "src/main.ts(3,5): error TS1: no\n100% like_this\n",
    )
    evidence = ["src/main.ts(3,5): error TS1: no", "100% like_this", "100% likeXthis", "gone", "-"]
    build.verdict = verdict("type_error", phase="build", evidence=evidence).as_json()
    index = LogIndex(build)

    with django_assert_num_queries(1):
        found = find_evidence(build, index)

    assert found == {"src/main.ts(3,5): error TS1: no": 3, "100% like_this": 6}


def test_truncated_evidence_is_found_by_its_beginning(store: Store) -> None:
    line = "Error: " + "long " * 200
    build = store(f"a\nb\n{line}\n")
    build.verdict = verdict("build_failed", phase="build", evidence=[line]).as_json()

    assert list(find_evidence(build, LogIndex(build)).values()) == [3]


# --- Pages for the script ----------------------------------------------------------------------------------------


def test_pages_contain_the_whole_text_with_the_kind_of_each_run(store: Store) -> None:
    build = store(("$ make\n", "system", "installation"), "häl\U0001f600lo\n", ("oh\n", "stderr", "build"), "end")

    first = read_page(build, after=BEGINNING, most_bytes=10, kept_bytes=1000, kept_lines=1000)
    rest = read_page(build, after=first.cursor, most_bytes=1000, kept_bytes=1000, kept_lines=1000)

    assert (first.line, first.has_more, first.cursor) == (1, True, Cursor(1, 6))
    assert first.text + rest.text == "$ make\nhäl\U0001f600lo\noh\nend"
    # JavaScript's length, in which a character beyond the basic plane counts as two.
    assert [run[:3] for run in first.runs] == [(7, "installation", "system"), (8, "build", "stdout")]
    assert [run[:3] for run in rest.runs] == [(3, "build", "stderr"), (3, "build", "stdout")]
    assert (rest.has_more, rest.cursor) == (False, Cursor(1, 12))
    assert read_page(build, after=Cursor(1, 12), most_bytes=10, kept_bytes=10, kept_lines=10).as_json()["runs"] == []


def test_a_log_that_is_too_long_shows_its_end_with_line_numbers(store: Store, lease: BuildLease) -> None:
    build = store(*(f"line {number}\n" for number in range(1, 101)))
    build.log_bytes = 792

    page = read_page(build, after=BEGINNING, most_bytes=1000, kept_bytes=100, kept_lines=1000)

    assert page.line > 1
    assert page.text.startswith(f"line {page.line}\n")
    assert page.text.endswith("line 100\n")
    assert 80 < len(page.text) <= 100
    fewer = read_page(build, after=BEGINNING, most_bytes=1000, kept_bytes=1000, kept_lines=7)
    assert (fewer.line, fewer.text.count("\n")) == (94, 7)


def test_a_cursor_of_an_earlier_attempt_starts_over(store: Store) -> None:
    build = store("a\n")

    assert read_page(build, after=Cursor(7, 3), most_bytes=10, kept_bytes=10, kept_lines=10).text == "a\n"


def test_lengths_are_counted_as_in_javascript() -> None:
    assert [utf16_length(text) for text in ("", "abc", "ä", "\U0001f600", "\ud800")] == [0, 3, 1, 2, 1]
