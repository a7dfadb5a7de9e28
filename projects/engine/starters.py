"""The starters: small, finished projects. The words of a prompt choose one and fill it in; no model is used.

Each is a folder of real files in `starter_files/`. Where they need text from the prompt, they have a placeholder,
`%%title:html%%`: which text, and how to escape it there. Placeholders occur only inside strings and running text, so
that a template is as well formed as a filled-in file. The texts are `title`, `description` and `package`;
the escapings are those of `_ESCAPES`.

To update a lock file, run `npm install --package-lock-only` in a filled-in copy. Keep every `integrity`, remove every
`resolved` (it names a registry), and set `name` to the placeholder of package.json again.

Pure: no settings, no database; reads only its own files.
"""

import html
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from projects.files.paths import NewFile

MAX_TITLE, MAX_DESCRIPTION, MAX_PACKAGE = 60, 200, 50

_FILES = Path(__file__).parent / "starter_files"


@dataclass(frozen=True, kw_only=True)
class Starter:
    """`title` completes "this is a …". `words` are the weights of words in a prompt; the highest sum wins.

    The defaults are used where neither prompt nor name gives a text.
    """

    key: str
    title: str
    runtime: str
    words: Mapping[str, int]
    default_title: str
    default_description: str
    default_package: str


@dataclass(frozen=True)
class Choice:
    """A starter, and one sentence for the user that says why it was chosen."""

    starter: Starter
    because: str


# Naming a language or framework decides; all other words add up.
_NAMED = 100
_TODO = MappingProxyType(
    {
        "default_title": "Todo list",
        "default_description": "A list of things to do.",
        "default_package": "todo-list",
    }
)


def _words(named: str, **weights: str) -> Mapping[str, int]:
    """Weights by word, from lists of words: `named` ones decide, `w3="a b"` weigh 3. A phrase has `_` for its space."""
    weighed = {word.replace("_", " "): int(key[1:]) for key, words in weights.items() for word in words.split()}
    return MappingProxyType(dict.fromkeys(named.split(), _NAMED) | weighed)


STARTERS = (
    Starter(
        key="react",
        title="React app",
        runtime="node",
        words=_words(
            "react reactjs jsx tsx",
            w5="single_page spa frontend front_end",
            w3="app apps application todo todos todolist tracker dashboard game calculator widget",
            w1="web_app list lists checklist task tasks interactive typescript",
        ),
        **_TODO,
    ),
    Starter(key="vue", title="Vue app", runtime="node", words=_words("vue vuejs vue3 pinia"), **_TODO),
    Starter(
        key="static",
        title="static site",
        runtime="static",
        words=_words(
            "",
            w8="landing homepage portfolio html html5 static brochure",
            w5="site sites website websites webpage css blog",
            w3="page pages home_page web_page",
        ),
        default_title="Welcome",
        default_description="A page that says in a few words what this is, and for whom.",
        default_package="site",
    ),
    Starter(
        key="python",
        title="Python package",
        runtime="python",
        words=_words(
            "python python3 pypi pip django flask fastapi",
            w5="cli command_line commandline wheel",
            w3="library terminal converter script",
            w2="package module tool",
        ),
        default_title="Unit converter",
        default_description="Convert amounts from one unit to another.",
        default_package="unit-converter",
    ),
    Starter(
        key="node-api",
        title="Node API",
        runtime="node",
        words=_words(
            "express expressjs fastify koa nestjs",
            w50="node nodejs",
            w5="api apis backend back_end endpoint endpoints microservice rest crud",
            w3="server http webhook json service",
        ),
        default_title="Todo API",
        default_description="A JSON API for things to do.",
        default_package="todo-api",
    ),
)
_RUNTIMES = {"node": "Node", "static": "static files", "python": "Python"}
_OTHERWISE = {"node": "react", "static": "static", "python": "python", None: "static"}
_BY_KEY = {starter.key: starter for starter in STARTERS}


# --- Choosing ------------------------------------------------------------------------------------------------------


def choose(prompt: str, *, runtime: str | None = None) -> Choice:
    """The starter for a prompt, among those of the runtime if one is given. Raises ValueError if it has none."""
    candidates = [starter for starter in STARTERS if runtime in {None, starter.runtime}]
    if not candidates:
        raise ValueError(f"there is no starter for the runtime {runtime!r}")
    said = list(dict.fromkeys(_said(prompt)))
    best = max(candidates, key=lambda starter: _score(starter, said))
    deciding = [word for word in said if word in best.words]
    if not deciding:
        best = _BY_KEY[_OTHERWISE[runtime]]
    return Choice(best, _because(best, runtime, deciding, is_only=len(candidates) == 1))


def _said(prompt: str) -> Iterator[str]:
    """The prompt's words and pairs of neighbouring words, without case, accents and punctuation."""
    plain = unicodedata.normalize("NFKD", prompt).casefold()
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    words = re.findall(r"[^\W_]+", re.sub(r"\bto-(?=dos?\b)", "to", plain))
    for first, second in pairwise([*words, ""]):
        yield first
        yield f"{first} {second}"


def _score(starter: Starter, said: list[str]) -> tuple[int, int]:
    """The sum of the weights; among equals, the one mentioned first."""
    places = [place for place, word in enumerate(said) if word in starter.words]
    return sum(starter.words[said[place]] for place in places), -min(places, default=len(said))


def _because(starter: Starter, runtime: str | None, deciding: list[str], *, is_only: bool) -> str:
    asked = f"the strategy asks for {_RUNTIMES[runtime]}" if runtime else ""
    if deciding and not is_only:
        said = f"the prompt says {_listed(deciding)}"
    else:
        said = "" if is_only else "no word of the prompt matches a starter"
    reason = " and ".join(part for part in (asked, said) if part)
    return f"{reason[:1].upper()}{reason[1:]}, so this is a {starter.title}."


def _listed(words: list[str]) -> str:
    *others, last = (f"“{word}”" for word in words)
    return f"{', '.join(others)} and {last}" if others else last


# --- Filling -------------------------------------------------------------------------------------------------------

_PLACEHOLDER = re.compile(r"%%(\w+):(\w+)%%")
# How prompts begin: "Please build me a simple …".
_LEAD = re.compile(
    r"^(?:please )?(?:(?:can|could|would|will) you (?:please )?|(?:i|we)(?: want| need|['\u2019]d like| would like)"
    r"(?: you)?(?: to)?(?: have)? )?(?:(?:build|create|make|write|generate|design|develop|implement|code|give)"
    r"(?: me| us)? )?(?:(?:an?|the|my|our|some) )?",
    re.IGNORECASE,
)
# A page is named after its subject: "Modern landing page for a …".
_PAGE_FOR = re.compile(
    r"^(?:(?!with |that |and )[\w-]+ ){0,3}?(?:(?:landing |web ?|home ?)?page|(?:web ?)?site|portfolio) "
    r"(?:for|about|of) (?:(?:an?|the|my|our) )?",
    re.IGNORECASE,
)
# What follows these is detail.
_TITLE_END = re.compile(r" (?:with|using|which|where|and has) |[.,;:!?](?: |$)", re.IGNORECASE)
# Joiners combine characters in emoji and some scripts; other invisible characters only mislead.
_JOINERS = "\u200c\u200d"


def fill(starter: Starter, *, prompt: str, name: str) -> list[NewFile]:
    """The starter's files, filled in from the prompt and the project's name; either may be empty or odd."""
    texts = _texts(starter, prompt, name)

    def text(match: re.Match[str]) -> str:
        return _ESCAPES[match[2]](texts[match[1]])

    return [NewFile(path, _PLACEHOLDER.sub(text, content).encode()) for path, content in _template(starter.key).items()]


@cache
def _template(key: str) -> Mapping[str, str]:
    """The template files, by path."""
    folder = _FILES / key
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    # Building the image compiles all Python files, these too.
    sources = [path for path in paths if "__pycache__" not in path.parts]
    return MappingProxyType({path.as_posix(): (folder / path).read_text("utf-8") for path in sources})


def _texts(starter: Starter, prompt: str, name: str) -> dict[str, str]:
    """The values of the placeholders: single lines of visible text, never empty."""
    subject = _LEAD.sub("", _visible(prompt), count=1)
    about = _PAGE_FOR.sub("", subject, count=1)
    title = _spaced(_visible(name)) or _TITLE_END.split(about, maxsplit=1)[0]
    # Shown together: the description should say more than the title, if the prompt does.
    description = about if len(about.rstrip(" .!")) > len(title) else subject
    title = _shortened(_capitalised(title), MAX_TITLE)
    return {
        "title": title or starter.default_title,
        "description": _shortened(_capitalised(description), MAX_DESCRIPTION) or starter.default_description,
        "package": _package(title) or starter.default_package,
    }


def _visible(text: str) -> str:
    """The text on one line, without control characters, direction marks and unpaired surrogates."""
    kept = (char for char in " ".join(text.split()) if char in _JOINERS or not _is_hidden(char))
    return " ".join("".join(kept).split()).strip(f" {_JOINERS}")


def _is_hidden(char: str) -> bool:
    return unicodedata.category(char) in {"Cc", "Cf", "Cs"}


def _spaced(name: str) -> str:
    """A human-readable name from one written for programs, as one word."""
    return name if " " in name else re.sub("[-_]+", " ", name).strip()


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    cut = text[: most - 1]
    at_word = cut.rpartition(" ")[0]
    return f"{at_word if len(at_word) > most // 2 else cut}…"


def _package(title: str) -> str:
    """The title as a package name that npm and PyPI both allow; empty when no character can be kept."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return "-".join(re.findall(r"[a-z0-9]+", plain))[:MAX_PACKAGE].strip("-")


# --- Escaping ------------------------------------------------------------------------------------------------------


def _quoted(text: str) -> str:
    """For double-quoted strings in JSON, TOML and Python, and for docstrings."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _script(text: str) -> str:
    """For double-quoted strings in JavaScript, also inside HTML: nothing can end the script element."""
    return _quoted(text).replace("<", "\\u003c")


def _markup(text: str) -> str:
    """For HTML text and quoted attributes. Vite replaces `%NAME%` with environment variables, so % is escaped too."""
    return html.escape(text).replace("%", "&#37;")


def _markdown(text: str) -> str:
    """For a line of Markdown: anything that could be markup or an automatic link becomes plain text."""
    text = re.sub(r"[\\`*_{}\[\]<>#|~&$@:!^=]", r"\\\g<0>", text)
    text = re.sub(r"\b(www)\.", r"\1\\.", text, flags=re.IGNORECASE)
    return re.sub(r"^([+-]|\d+(?=[.)]))", lambda found: _list_mark(found[0]), text)


def _list_mark(mark: str) -> str:
    return f"\\{mark}" if mark in "+-" else f"{mark}\\"


_ESCAPES: Mapping[str, Callable[[str], str]] = {
    "html": _markup,
    "js": _script,
    "json": _quoted,
    "md": _markdown,
    "py": _quoted,
    "toml": _quoted,
}
