"""Writes static/css/code-colours.css: the colours of source files, made of two of Pygments' styles.

Those were chosen because every colour of theirs stands out well enough from our backgrounds (WCAG AA): a test asks.
Run it again when Pygments has changed them: `.venv/bin/python -m scripts.code_colours`.
"""

from collections import defaultdict
from typing import Any

from pygments.styles import get_style_by_name
from pygments.token import STANDARD_TYPES, Error, Text, Whitespace

from scripts.place import ROOT

FILE = ROOT / "static" / "css" / "code-colours.css"
LIGHT, DARK = "xcode", "github-dark"


def style_sheet() -> str:
    light, dark = _rules(LIGHT), _rules(DARK)
    return (
        f"/* Made by scripts/code_colours.py of Pygments' styles {LIGHT} and {DARK}. */\n"
        f"{light}@media (prefers-color-scheme: dark) {{\n{dark}}}\n"
    )


def colours(name: str) -> set[str]:
    """Every colour that a style gives to text that can be seen, as six hexadecimal digits."""
    return {told["color"] for kind, told in get_style_by_name(name) if _is_shown(kind) and told["color"]}


def _is_shown(kind: Any) -> bool:
    """What a lexer does not understand is no fault of the file, and spaces have no colour."""
    return kind is not Error and kind is not Whitespace


def _rules(name: str) -> str:
    """One rule for all classes that look alike. Backgrounds and frames are left to our own style sheets."""
    alike = defaultdict(list)
    for kind, told in get_style_by_name(name):
        short = STANDARD_TYPES.get(kind)
        if not short or not _is_shown(kind) or kind is Text:
            continue
        # Each says all, so that nothing of the light style is left in the dark one.
        weight, slant = "bold" if told["bold"] else "normal", "italic" if told["italic"] else "normal"
        colour = f"#{told['color']}" if told["color"] else "inherit"
        alike[f"color: {colour}; font-weight: {weight}; font-style: {slant};"].append(f".source .{short}")
    return "".join(f"{', '.join(classes)} {{ {rule} }}\n" for rule, classes in alike.items())


if __name__ == "__main__":
    FILE.write_text(style_sheet())
