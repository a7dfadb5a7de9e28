"""Escape sequences: colours become styles, everything else is removed, even from hostile text."""

import pytest

from chef.text.ansi import PLAIN, Look, clean, pieces, plain, printable

pytestmark = pytest.mark.once


def styles(text: str) -> list[tuple[str, str]]:
    return [(part, look.classes) for part, look in pieces(text) if part]


@pytest.mark.parametrize(
    ("sequence", "classes"),
    [
        ("31", "f0"),
        ("92", "f4"),
        ("90", "fg"),
        ("30", ""),
        ("97", ""),
        ("44", "b8"),
        ("100", "bg"),
        ("1;4;3;9;2", "bo di it un st"),
        ("38;5;1", "f0"),
        ("38;5;208", "f1"),
        ("38:5:21", "f8"),
        ("38;5;244", "fg"),
        ("38;2;255;0;255", "f10"),
        ("48;2;0;200;200", "b6"),
        ("38;2;250;250;250", ""),
        ("1;38;5;2;4", "f4 bo un"),
        ("7", "bg"),
        ("31;7", "b0"),
        ("31;39", ""),
        ("44;49", ""),
        ("1;22", ""),
        ("31;0", ""),
        ("31;", ""),
        # invalid or truncated sequences change nothing
        ("38;5", ""),
        ("38;5;999", ""),
        ("38;9;1", ""),
        ("999", ""),
        ("31;99999999999999999999", "f0"),
    ],
)
def test_a_sequence_becomes_css_classes(sequence: str, classes: str) -> None:
    assert styles(f"\x1b[{sequence}mtext") == [("text", classes)]


def test_a_style_continues_into_the_next_text() -> None:
    parts = list(pieces("a\x1b[31mb\x1b[1mc"))

    assert [(text, look.classes) for text, look in parts] == [("a", ""), ("b", "f0"), ("c", "f0 bo")]
    assert styles_from("d\x1b[0me", parts[-1][1]) == [("d", "f0 bo"), ("e", "")]


def test_an_empty_text_keeps_its_style() -> None:
    red = Look(ink="0")

    assert list(pieces("", red)) == [("", red)]
    assert list(pieces("\x1b[0m", red)) == [("", PLAIN)]


def test_plain_text_has_no_escape_sequences() -> None:
    assert plain("\x1b[1;31mred\x1b[0m and \x1b[38;5;2mgreen\x1b[m") == "red and green"


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        ("\x1b[2J\x1b[1;1Hgone", "gone"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPdcs\x1b\\text", "text"),
        ("\x1bcreset", "reset"),
        ("a\bb\x7fc\x9bd", "abcd"),
        ("50%\r100%\r\n", "50%\n100%\n"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
    ],
)
def test_only_colours_are_kept_in_a_log_and_none_in_a_printable_line(raw: str, kept: str) -> None:
    assert clean(raw) == kept
    assert printable(raw) == plain(kept).replace("\n", "")


def styles_from(text: str, look: Look) -> list[tuple[str, str]]:
    return [(part, its.classes) for part, its in pieces(text, look) if part]
