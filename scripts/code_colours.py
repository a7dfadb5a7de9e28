"""Writes static/css/code-colours.css: the colours of source files, from two of Pygments' styles.

They were chosen because all of their colours have enough contrast on our backgrounds (WCAG AA), which a test checks.
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
    """Every colour that a style gives to visible text, as six hexadecimal digits."""
    return {style["color"] for kind, style in get_style_by_name(name) if _is_shown(kind) and style["color"]}


def _is_shown(kind: Any) -> bool:
    """Skips errors, which are the lexer's rather than the file's, and white space, which has no colour."""
    return kind is not Error and kind is not Whitespace


def _rules(name: str) -> str:
    """One rule for all classes with the same look. Backgrounds and borders are left to our own style sheets."""
    alike = defaultdict(list)
    for kind, style in get_style_by_name(name):
        short = STANDARD_TYPES.get(kind)
        if not short or not _is_shown(kind) or kind is Text:
            continue
        # Each rule sets all properties, so that nothing of the light style remains in the dark one.
        weight, slant = "bold" if style["bold"] else "normal", "italic" if style["italic"] else "normal"
        colour = f"#{style['color']}" if style["color"] else "inherit"
        alike[f"color: {colour}; font-weight: {weight}; font-style: {slant};"].append(f".source .{short}")
    return "".join(f"{', '.join(classes)} {{ {rule} }}\n" for rule, classes in alike.items())


if __name__ == "__main__":
    FILE.write_text(style_sheet())
