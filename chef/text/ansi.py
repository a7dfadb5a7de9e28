"""The only parser of terminal escape sequences (ECMA-48) in Python: removes them, or parses colours.

`clean` keeps colours, for the stored log; `plain` removes them from such a text; `pieces` parses them into CSS classes.
`printable` is for texts that never have colours.

static/js/ansi.js is its counterpart in the browser, for stored logs, and has only `plain` and `pieces`: change both
together. Colours are reduced to those that are readable on light and dark pages: twelve hues, a muted grey, and the
page's text colour.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

_COLOUR = r"\[([0-9;:]*)m"  # after ESC: "select graphic rendition"
_SEQUENCE = (
    r"\[[0-?]*[ -/]*[@-~]"  # CSI sequences, of which colours are one kind
    r"|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC, DCS, SOS, PM, APC
    r"|[ -/]*[0-~]?"  # two-character sequences
)
COLOUR = re.compile(rf"\x1b{_COLOUR}")
COLOUR_IN_BYTES = re.compile(rb"\x1b\[[0-9;:]*m")
# Every escape sequence except colours, and every control character except newline and tab.
_NO_COLOUR = re.compile(rf"\x1b(?!{_COLOUR})(?:{_SEQUENCE})|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")
# Every escape sequence, and every control character except tab.
_ANY = re.compile(rf"\x1b(?:{_SEQUENCE})|[\x00-\x08\x0a-\x1f\x7f-\x9f]")
# The eight basic colours: black, red, green, yellow, blue, magenta, cyan, white.
_BASIC = ("", "0", "4", "2", "8", "10", "6", "")
_LEVELS = (0, 95, 135, 175, 215, 255)
_LEAST_CHROMA = 40


@dataclass(frozen=True)
class Look:
    """`ink` (text) and `ground` are a hue from 0 to 11, `g` for grey, or empty for the page's own colour."""

    ink: str = ""
    ground: str = ""
    is_bold: bool = False
    is_dim: bool = False
    is_italic: bool = False
    is_underlined: bool = False
    is_struck: bool = False
    is_inverse: bool = False

    @property
    def classes(self) -> str:
        ink, ground = (self.ground, self.ink or "g") if self.is_inverse else (self.ink, self.ground)
        names = [f"f{ink}" if ink else "", f"b{ground}" if ground else "", "bo" if self.is_bold else ""]
        names += ["di" if self.is_dim else "", "it" if self.is_italic else "", "un" if self.is_underlined else ""]
        return " ".join(filter(None, [*names, "st" if self.is_struck else ""]))


PLAIN = Look()
_SWITCHES: dict[int, dict[str, Any]] = {
    1: {"is_bold": True},
    2: {"is_dim": True},
    3: {"is_italic": True},
    4: {"is_underlined": True},
    7: {"is_inverse": True},
    9: {"is_struck": True},
    21: {"is_underlined": True},
    22: {"is_bold": False, "is_dim": False},
    23: {"is_italic": False},
    24: {"is_underlined": False},
    27: {"is_inverse": False},
    29: {"is_struck": False},
}


def clean(text: str) -> str:
    """`text` with normalised line ends, and without control characters or escape sequences other than colours."""
    return _NO_COLOUR.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def plain(text: str) -> str:
    """A text from `clean`, without its colours."""
    return COLOUR.sub("", text) if "\x1b" in text else text


def printable(text: str) -> str:
    """One line without any escape sequence, and without control characters other than tabs."""
    return _ANY.sub("", text)


def pieces(text: str, look: Look = PLAIN) -> Iterator[tuple[str, Look]]:
    """(text without colours, its look), starting in `look`; the last look applies to the text that follows."""
    end = 0
    for match in COLOUR.finditer(text):
        if match.start() > end:
            yield text[end : match.start()], look
        look, end = _changed(look, match[1]), match.end()
    yield text[end:], look


def _changed(look: Look, parameters: str) -> Look:
    # Both forms of extended colours are in use: 38;5;1 and 38:5:1.
    numbers = [min(int(part or 0), 9999) if len(part) < 6 else 9999 for part in parameters.replace(":", ";").split(";")]
    at = 0
    while at < len(numbers):
        number = numbers[at]
        at += 1
        if number in (38, 48):
            colour, taken = _extended(numbers[at:])
            at += taken
            look = replace(look, ink=colour) if number == 38 else replace(look, ground=colour)
        else:
            look = _basic(look, number)
    return look


def _basic(look: Look, number: int) -> Look:
    if number == 0:
        return PLAIN
    if number in _SWITCHES:
        return replace(look, **_SWITCHES[number])
    tens, one = divmod(number, 10)
    if tens in (3, 9) and one <= 7:
        return replace(look, ink="g" if number == 90 else _BASIC[one])
    if tens in (4, 10) and one <= 7:
        return replace(look, ground=_BASIC[one] or "g")
    if number == 39:
        return replace(look, ink="")
    return replace(look, ground="") if number == 49 else look


def _extended(numbers: Sequence[int]) -> tuple[str, int]:
    """The colour after 38 or 48, and how many numbers it takes."""
    if numbers[:1] == [5] and len(numbers) >= 2:
        return _from_palette(numbers[1]), 2
    if numbers[:1] == [2] and len(numbers) >= 4:
        return _from_rgb(*numbers[1:4]), 4
    return "", len(numbers)


def _from_palette(number: int) -> str:
    if number < 16:
        return "g" if number == 8 else _BASIC[number % 8]
    if number < 232:
        red, rest = divmod(number - 16, 36)
        return _from_rgb(_LEVELS[min(red, 5)], _LEVELS[rest // 6], _LEVELS[rest % 6])
    return _from_rgb(*[8 + 10 * (number - 232)] * 3) if number < 256 else ""


def _from_rgb(red: int, green: int, blue: int) -> str:
    most, least = max(red, green, blue), min(red, green, blue)
    chroma = most - least
    if chroma < _LEAST_CHROMA:
        return "g" if 60 <= most <= 180 else ""
    if most == red:
        hue = (green - blue) / chroma % 6
    else:
        hue = (blue - red) / chroma + 2 if most == green else (red - green) / chroma + 4
    return str(int(hue * 2 + 0.5) % 12)
