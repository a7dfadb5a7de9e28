"""How a page shows a file: text in coloured lines, images recognised by their bytes."""

import struct

import pytest

from builds.pages.files.embeddable_images import MAX_PIXELS, raster_of
from chef.text.source_text import html_lines, text_of
from scripts.code_colours import DARK, FILE, LIGHT, colours, style_sheet
from tests.builds.pages.contrast import contrast

pytestmark = pytest.mark.once

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 3, 2) + b"\x08\x02\0\0\0" + bytes(20)


RASTERS = {
    "png": (PNG, ("image/png", 3, 2)),
    "gif": (b"GIF89a" + struct.pack("<HH", 7, 5), ("image/gif", 7, 5)),
    "jpeg": (
        b"\xff\xd8\xff\xe0\0\x04ab" + b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, 20, 30, 1) + bytes(3),
        ("image/jpeg", 30, 20),
    ),
    "lossy webp": (b"RIFF\0\0\0\0WEBPVP8 " + bytes(10) + struct.pack("<HH", 40, 30), ("image/webp", 40, 30)),
    "lossless webp": (
        b"RIFF\0\0\0\0WEBPVP8L" + bytes(4) + b"\x2f" + struct.pack("<I", 9 | 4 << 14),
        ("image/webp", 10, 5),
    ),
    "extended webp": (b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + b"\x09\0\0\x04\0\0", ("image/webp", 10, 5)),
    "svg": (b"<svg width='3' height='2'/>", None),
    "cut png": (PNG[:18], None),
    "cut jpeg": (b"\xff\xd8\xff\xe0\xff", None),
    "unknown webp": (b"RIFF\0\0\0\0WEBPXXXX", None),
}


@pytest.mark.parametrize(("content", "expected"), RASTERS.values(), ids=RASTERS.keys())
def test_an_image_is_recognised_by_its_bytes(content: bytes, expected: tuple[str, int, int] | None) -> None:
    found = raster_of(content)

    assert (found and (found.media_type, found.width, found.height)) == expected
    if found:
        assert found.can_be_shown(1000)
        assert not found.can_be_shown(2**22)
    assert MAX_PIXELS < 60_000**2


ENCODINGS = {
    "UTF-8": ("é\r\nb\rc".encode(), (["é", "b", "c"], "")),
    "UTF-8 with a BOM": ("\ufeffé\n".encode(), (["é"], "")),
    "UTF-16": ("é\n".encode("utf-16"), (["é"], "UTF-16")),
    "UTF-16, big-endian": (b"\xfe\xff" + "é\n".encode("utf-16-be"), (["é"], "UTF-16")),
    "an old one": ("né\n".encode("latin-1") * 3, (["né"] * 3, "Windows-1252")),
    "a broken one": (b"\xff\xfe\x00", (["\ufffd"], "UTF-16")),
    "no text": (b"a\0b", None),
    "binary without zeros": (bytes(range(1, 32)) * 20 + b"\xff", None),
    "nothing": (b"", ([], "")),
}


@pytest.mark.parametrize(("content", "expected"), ENCODINGS.values(), ids=ENCODINGS.keys())
def test_text_is_decoded_in_each_encoding(content: bytes, expected: tuple[list[str], str] | None) -> None:
    found = text_of(content)

    assert (found and (found.lines, found.encoding)) == expected


@pytest.mark.parametrize("path", ["a.js", "a.tsx", "a.py", "a.html", "a.css", "a.json", "a.md", "a.yaml", "a.toml"])
def test_colouring_changes_no_line(path: str) -> None:
    lines = ["", "/* a", "", "b */ x = '<&>'", "```", '{"a": 1}', "<b>c</b>", "  ", ""]

    coloured, is_coloured = html_lines(lines, path, first=1, last=len(lines))

    assert is_coloured
    assert len(coloured) == len(lines)
    assert "&lt;&amp;" in coloured[3]


def test_colouring_is_given_up_if_it_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chef.text.source_text.COLOUR_SECONDS", -1)

    assert html_lines(["x = 1"], "a.py", first=1, last=1) == (["x = 1"], False)


def test_colours_match_pygments_and_have_enough_contrast() -> None:
    assert FILE.read_text() == style_sheet(), "run .venv/bin/python -m scripts.code_colours"
    for style, backgrounds in ((LIGHT, ("ffffff", "fdf1d6")), (DARK, ("1f1c19", "33270d"))):
        for colour in colours(style):
            assert min(contrast(colour, background) for background in backgrounds) >= 4.5, (style, colour)


def test_a_part_is_coloured_as_in_the_whole() -> None:
    lines = ["x = '''a", "b", "c'''", "y = 1"]

    whole, _ = html_lines(lines, "a.py", first=1, last=4)

    for last in (2, 3):
        assert html_lines(lines, "a.py", first=2, last=last) == (whole[1:last], True)
