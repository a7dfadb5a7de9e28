"""Renders a source file as lines of HTML, coloured if that is fast, with hidden characters shown.

Pure functions of bytes and names. They return HTML in which the file's text is escaped.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from django.utils.html import escape, format_html_join
from django.utils.safestring import SafeString, mark_safe
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from chef.text.hidden_characters import hides, marked

MAX_LINE_CHARS = 2_000
# 100 KB take 0.2 s and become 1 MB of HTML.
MAX_COLOURED_CHARS = 100_000
COLOUR_SECONDS = 1.0  # CPU time, so that a busy machine makes no difference

# By suffix or whole name. Only languages of web projects: some rarer lexers take very long over a text crafted for
# that.
_LANGUAGES = {
    **dict.fromkeys(("js", "mjs", "cjs"), "javascript"),
    **dict.fromkeys(("ts", "mts", "cts"), "typescript"),
    **dict.fromkeys(("jsx", "tsx"), "tsx"),
    **dict.fromkeys(("py", "pyi"), "python"),
    **dict.fromkeys(("html", "htm", "vue", "svelte"), "html"),
    **dict.fromkeys(("xml", "svg"), "xml"),
    **dict.fromkeys(("css", "scss", "less"), "css"),
    **dict.fromkeys(("json", "jsonc", "webmanifest", "map"), "json"),
    **dict.fromkeys(("yml", "yaml"), "yaml"),
    **dict.fromkeys(("md", "markdown"), "markdown"),
    **dict.fromkeys(("sh", "bash"), "bash"),
    **dict.fromkeys(("ini", "cfg"), "ini"),
    **dict.fromkeys(("toml", "sql", "diff"), ""),
    "dockerfile": "docker",
    "makefile": "make",
    "rs": "rust",
    "go": "go",
}
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


@dataclass(frozen=True)
class Text:
    """A file's lines, without line ends; `encoding` is empty for UTF-8."""

    lines: list[str]
    encoding: str = ""


def text_of(content: bytes) -> Text | None:
    """The file's text; None if it is binary. Neither UTF-8 nor with a byte-order mark: read as Windows-1252."""
    for mark, encoding in _BOMS:
        if content.startswith(mark):
            text = content.decode(encoding, errors="replace")
            return Text(_lines(text), "" if encoding == "utf-8-sig" else "UTF-16")
    if b"\0" in content[:8_000]:
        return None
    try:
        return Text(_lines(content.decode()))
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
    strange = sum(character < " " and character not in "\t\r\n\f" for character in text[:8_000])
    return None if strange > 8_000 // 100 else Text(_lines(text), "Windows-1252")


def _lines(text: str) -> list[str]:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def html_lines(lines: Sequence[str], path: str, *, first: int, last: int) -> tuple[list[SafeString], bool]:
    """Lines `first` to `last`, counted from 1, as HTML; and whether they are coloured."""
    coloured = _coloured(lines, path, last)
    if coloured is not None:
        return [marked(line) for line in coloured[first - 1 : last]], True
    return [html_line(line) for line in lines[first - 1 : last]], False


def table_rows(lines: Sequence[SafeString], first: int) -> SafeString:
    """Rows of numbered lines. In Python, because a template would take longer than the colouring."""
    row = '<tr id="L{0}"><td class="num"><a href="#L{0}" tabindex="-1">{0}</a></td><td class="txt">{1}</td></tr>'
    return format_html_join("\n", row, enumerate(lines, first))


def html_line(line: str, most: int = MAX_LINE_CHARS) -> SafeString:
    """One line without colours. Characters beyond the limit are only counted."""
    shown = marked(escape(line[:most]))
    if (more := len(line) - most) > 0:
        return mark_safe(f'{shown}<span class="more">… {more:,} more characters</span>')  # noqa: S308
    return shown


def hides_something(lines: Sequence[str]) -> bool:
    return any(map(hides, lines))


class _TooSlowError(Exception):
    pass


def has_colours(path: str) -> bool:
    """Whether the file's language is supported."""
    return _lexer_of(path) is not None


def _coloured(lines: Sequence[str], path: str, last: int) -> list[str] | None:
    """Lines up to `last` as HTML with Pygments' classes; None without a language, or if it would take too long."""
    lexer = _lexer_of(path)
    if lexer is None or sum(map(len, lines)) > MAX_COLOURED_CHARS or any(len(line) > MAX_LINE_CHARS for line in lines):
        return None
    deadline = time.thread_time() + COLOUR_SECONDS

    def tokens() -> Iterator[tuple[Any, str]]:
        lines_seen = 0
        for number, (kind, text) in enumerate(lexer.get_tokens("\n".join([*lines, ""]))):
            if number % 100 == 0 and time.thread_time() > deadline:
                raise _TooSlowError
            yield kind, text
            if (lines_seen := lines_seen + text.count("\n")) >= last:
                return

    out = StringIO()
    try:
        HtmlFormatter(nowrap=True).format(tokens(), out)
    except _TooSlowError:
        return None
    coloured = out.getvalue().removesuffix("\n").split("\n")
    return coloured if len(coloured) >= last else None


def _lexer_of(path: str) -> Any:
    name = path.rpartition("/")[2].lower()
    suffix = name.rpartition(".")[2]
    for key in (name, suffix):
        if key in _LANGUAGES:
            return get_lexer_by_name(_LANGUAGES[key] or key, stripnl=False, ensurenl=False)
    return None
