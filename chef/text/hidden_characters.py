"""Makes hidden or misleading characters visible: "U+202E" instead of a reversed text.

Pure functions of text. static/js/ansi.js knows the same characters: change both together.
"""

import re

from django.utils.safestring import SafeString, mark_safe

# Unicode TR 36. Joiners belong to some scripts and to emoji: after those, they stay.
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]|(?<![\u0600-\U0010ffff])[\u200c\u200d]"
)


def hides(text: str) -> bool:
    return HIDDEN.search(text) is not None


def marked(html: str) -> SafeString:
    """Escaped text with a marker for each such character."""
    return mark_safe(HIDDEN.sub(lambda found: f'<span class="unseen">{_code(found)}</span>', html))  # noqa: S308


def spelled(text: str) -> str:
    """The same without markup, for titles and attributes."""
    return HIDDEN.sub(lambda found: f"[{_code(found)}]", text)


def _code(found: "re.Match[str]") -> str:
    return f"U+{ord(found[0]):04X}"
