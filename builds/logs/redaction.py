"""Redacts secrets in a build's output: each is replaced by `[secret NAME]`.

A secret is found whole and, if it has several lines, line by line; in base64 at any alignment, in hexadecimal,
URL-encoded, and as JSON or a quoting shell writes it; split across writes in any way, and with colours inside. Other
transformations (reversing, encrypting, printing parts of it) cannot be detected in the output. Works on cleaned text:
see `chef.text.ansi.clean`. Knows neither projects nor the log.

Every form has at least MIN_BYTES bytes, so its first seven contain one whole four-byte word at an offset divisible by
four, wherever it begins in the text. Looking those words up in a set costs the same for one secret as for fifty.
"""

import base64
import json
import re
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

from chef.text.ansi import COLOUR_IN_BYTES

MIN_BYTES = 8
_WORD = 4
# The line lengths of `base64` and `openssl base64`.
_WRAPPED_AT = (76, 64)

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")

_Span = tuple[int, int, bytes]  # start, end, replacement


class Redaction:
    """All forms of some secrets, prepared once for any number of streams. `secrets` are (name, value) pairs."""

    def __init__(self, secrets: Iterable[tuple[str, str]]) -> None:
        self._masks: dict[bytes, bytes] = {}
        for name, value in secrets:
            for form in forms(value):
                self._masks.setdefault(form, f"[secret {name}]".encode())
        self._longest_first = sorted(self._masks, key=len, reverse=True)
        self._words: dict[int, list[tuple[int, bytes]]] = {}
        for form in self._longest_first:
            for offset in range(_WORD):
                word = int.from_bytes(form[offset : offset + _WORD], sys.byteorder)
                self._words.setdefault(word, []).append((offset, form))
        self._word_set = frozenset(self._words)
        # Only these can span several lines.
        self._of_several_lines = [form for form in self._longest_first if b"\n" in form]
        self.most_held = 2 * max(map(len, self._masks), default=0) + 4096

    def __bool__(self) -> bool:
        return bool(self._masks)

    def redact(self, text: str) -> str:
        """A whole text at once."""
        stream = StreamRedactor(self)
        return stream.feed(text) + stream.finish()

    def spans(self, plain: bytes) -> Iterator[_Span]:
        """Where forms occur in a text without colours; they may overlap."""
        words = memoryview(plain)[: len(plain) // _WORD * _WORD].cast("I")
        if self._word_set.isdisjoint(words):
            return
        for index, word in enumerate(words):
            for offset, form in self._words.get(word, ()):
                start = index * _WORD - offset
                if start >= 0 and plain.startswith(form, start):
                    yield start, start + len(form), self._masks[form]

    def unfinished(self, plain: bytes) -> int:
        """How many bytes at the end could be the start of a form that is not complete yet."""
        candidates = self._of_several_lines if plain.endswith(b"\n") else self._longest_first
        return max((_overlap(plain, form) for form in candidates), default=0)


class StreamRedactor:
    """Redacts one stream: passes on what is certainly not a secret, and holds back what may become one."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction
        self._held = b""
        self._masked = 0  # how much of the held text is a secret whose mask has been passed on already

    def feed(self, text: str) -> str:
        """The part of the text so far that can be passed on."""
        if not text or not self._redaction:
            return text
        raw = _ColouredText(self._held + _utf8(text))
        cut = raw.start(len(raw.plain) - self._redaction.unfinished(raw.plain))
        if len(raw.text) - cut > self._redaction.most_held:
            cut = len(raw.text)  # only an endless run of colour codes is that long
        return self._pass_on(raw, cut)

    def finish(self) -> str:
        """Everything held back, at the end of the stream."""
        return self._pass_on(_ColouredText(self._held), len(self._held))

    def _pass_on(self, raw: "_ColouredText", cut: int) -> str:
        """The masked text up to the cut; the rest is held back."""
        given, at = [], 0
        masked = 0
        for start, end, mask in self._spans(raw):
            if start >= cut:
                break
            given += [raw.text[at:start], mask, *COLOUR_IN_BYTES.findall(raw.text[start : min(end, cut)])]
            at, masked = min(end, cut), max(end - cut, 0)
        given.append(raw.text[at:cut])
        self._held, self._masked = raw.text[cut:], masked
        return b"".join(given).decode(errors="surrogatepass")

    def _spans(self, raw: "_ColouredText") -> list[_Span]:
        """What to mask, in order and without overlaps: overlapping secrets get the first one's name."""
        found = [(raw.start(start), raw.end(end), mask) for start, end, mask in self._redaction.spans(raw.plain)]
        if self._masked:
            found.append((0, self._masked, b""))
        merged: list[_Span] = []
        for start, end, mask in sorted(found, key=lambda span: (span[0], span[2] != b"", -span[1])):
            if merged and start < merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end), merged[-1][2])
            else:
                merged.append((start, end, mask))
        return merged


class _ColouredText:
    """A text, the same without colour codes, and the mapping of positions in that back to the text."""

    def __init__(self, text: bytes) -> None:
        self.text = self.plain = text
        self._places: list[int] = []  # positions of colour codes in the text without them
        self._lengths = [0]  # their cumulative lengths
        if b"\x1b" in text:
            self._measure()

    def _measure(self) -> None:
        for code in COLOUR_IN_BYTES.finditer(self.text):
            self._places.append(code.start() - self._lengths[-1])
            self._lengths.append(self._lengths[-1] + len(code[0]))
        self.plain = COLOUR_IN_BYTES.sub(b"", self.text)

    def start(self, place: int) -> int:
        """The position in the text of a position without colours: after the colour codes there."""
        return place + self._lengths[bisect_right(self._places, place)]

    def end(self, place: int) -> int:
        """The same, before the colour codes there."""
        return place + self._lengths[bisect_left(self._places, place)]


# --- The forms of a secret ---------------------------------------------------------------------------------------


def forms(value: str) -> set[bytes]:
    """Every form that reveals a secret, as UTF-8, except those too short to be distinguished from other text."""
    found: set[bytes] = set()
    for text in {value, value.strip()}:
        # Without its surrounding line ends, which the log needs for its lines.
        found |= {_utf8(_cleaned(written).strip("\n")) for written in (text, *_quoted_forms(text))}
        found |= {_utf8(line.strip()) for line in _cleaned(text).split("\n")}
        found |= set(_encoded(_utf8(text)))
    return {form for form in found if len(form) >= MIN_BYTES}


def _cleaned(text: str) -> str:
    """The secret after chef.text.ansi.clean: control characters never reach the log."""
    return _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def _utf8(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _quoted_forms(text: str) -> Iterator[str]:
    """The secret as programs quote it."""
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield text.replace("'", "'\\''")  # what `set -x` shows
    yield repr(text)[1:-1]
    utf8 = _utf8(text)
    for url in (quote(utf8, safe=""), quote(utf8), quote(utf8, safe="!'()*"), quote_plus(utf8)):
        yield url
        yield re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), url)


def _encoded(data: bytes) -> Iterator[bytes]:
    yield data.hex().encode()
    yield data.hex().upper().encode()
    whole = base64.b64encode(data)
    for width in _WRAPPED_AT:
        yield from (whole[at : at + width] for at in range(0, len(whole), width))
    for before in range(3):
        # Some bits of the first and last character may come from the text around the secret.
        first, end = -(-before * 8 // 6), (before + len(data)) * 8 // 6
        core = base64.b64encode(bytes(before) + data)[first:end]
        yield core
        yield core.translate(bytes.maketrans(b"+/", b"-_"))


def _overlap(text: bytes, form: bytes) -> int:
    """The length of the longest suffix of the text that is a proper prefix of the form."""
    at = max(len(text) - len(form) + 1, 0)
    while (at := text.find(form[:MIN_BYTES], at)) >= 0:
        if form.startswith(text[at:]):
            return len(text) - at
        at += 1
    return next((size for size in range(MIN_BYTES - 1, 0, -1) if text.endswith(form[:size])), 0)
