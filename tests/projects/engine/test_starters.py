"""The starters: which one a prompt selects, and that a prompt cannot break or inject into their files."""

import ast
import json
import py_compile
import random
import re
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from projects.engine import starters
from projects.engine.starters import MAX_DESCRIPTION, MAX_PACKAGE, MAX_TITLE, STARTERS, Starter, choose, fill
from projects.files.limits import check_files
from projects.files.paths import path_fault

pytestmark = pytest.mark.once

BY_KEY = {starter.key: starter for starter in STARTERS}
JUNK = random.Random(1).choices([chr(code) for code in (*range(0x300), *range(0x2000, 0x2070), 0x1F35E)], k=20_000)
NASTY = {
    "empty": "",
    "spaces": " \t\r\n\u2028 ",
    "quotes": 'it\'s "quoted" and `ticked` and \'\'\' and """',
    "docstring": '"""\nimport os\nos.abort()\n"""',
    "backslashes": '\\ \\n \\" \\u0041 \\x \\N{DASH} \\',
    "script": "</title></script><script>alert(1)</script><!-- <![CDATA[ ]]> -->",
    "attribute": '" onload="alert(1)" x=\'',
    "template": "{{ title }} ${title} #{title} {title} <%= title %> %(prog)s %s",
    "variables": "%MODE% %BASE_URL% %%title:html%% %%package:json%%",
    "lines": "first line\nname = 'x'\r\n[tool]\n# heading\n- item",
    "markdown": "![a](javascript:b) [c](d) <e> *f* _g_ # i | j &amp; https://example.org www.example.org",
    "list": "1. first",
    "emoji": "Bread 🥐 👩🏽‍🍳 🇵🇹 and more",
    "right to left": "\u202eevil\u202c \u200fלחם \u2067x\u2069",
    "nothing to see": "\u200b\u200d\u2060\ufeff",
    "surrogates": "half \ud800 a \udfff pair",
    "control": "a\x00b\x1b[31mc\x7fd\x85e\ufffe",
    "accents": "Zo\u0308e\u0301 " + "e" + "\u0301" * 500,
    "other scripts": "面包店网站",
    "long": "x" * 20_000,
    "long words": "Build a very good app " * 1000,
    "junk": "".join(JUNK),
}
PLAIN = "Something plain"
# Control characters, and marks that reorder or hide text; joiners are kept, as emoji need them.
HIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")

Files = dict[str, str]


def filled(starter: Starter, prompt: str, name: str = "") -> Files:
    return {file.path: file.content.decode() for file in fill(starter, prompt=prompt, name=name)}


@pytest.fixture(params=STARTERS, ids=lambda starter: starter.key)
def starter(request: pytest.FixtureRequest) -> Starter:
    found: Starter = request.param
    return found


@pytest.fixture(params=NASTY)
def nasty(request: pytest.FixtureRequest) -> str:
    return NASTY[request.param]


# --- Choosing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "key", "words"),
    [
        ("Build a simple todo app with React", "react", ["todo", "app", "react"]),
        ("Build a todo app with Vue", "vue", ["vue"]),
        ("A landing page for a bakery", "static", ["landing", "page"]),
        ("python package that converts units", "python", ["python", "package"]),
        ("REST API with Node", "node-api", ["rest", "api", "node"]),
        ("Make me a to-do list", "react", ["todo", "list"]),
        ("A single-page app", "react", ["single page", "app"]),
        ("RÉACT, please!", "react", ["react"]),
        ("a dashboard in Vue.js", "vue", ["vue"]),
        ("A Vue-based site", "vue", ["vue"]),
        ("Portfolio of a photographer", "static", ["portfolio"]),
        ("a website with a list of prices", "static", ["website"]),
        ("Landing page for my todo app", "static", ["landing", "page"]),
        ("command-line tool", "python", ["command line", "tool"]),
        ("a library and a CLI", "python", ["library", "cli"]),
        ("a todo API in Python", "python", ["python"]),
        ("FastAPI server with REST endpoints", "python", ["fastapi"]),
        ("an Express server", "node-api", ["express", "server"]),
        ("backend with endpoints for a todo list", "node-api", ["backend", "endpoints"]),
        ("A React front end for my Node API", "react", ["react", "front end"]),
        ("Vue or React", "vue", ["vue"]),
        ("React or Vue", "react", ["react"]),
    ],
)
def test_words_of_the_prompt_select_the_starter_and_are_named(prompt: str, key: str, words: list[str]) -> None:
    choice = choose(prompt)

    assert choice.starter.key == key
    assert re.findall("“(.*?)”", choice.because) == words
    assert choice.because.startswith("The prompt says “")
    assert choice.because.endswith(f", so this is a {choice.starter.title}.")


@pytest.mark.parametrize("prompt", ["", "hello", "reaction, apply, sitemap, apian", "面包店", "\ud800"])
def test_a_prompt_without_known_words_gets_a_static_site(prompt: str) -> None:
    choice = choose(prompt)

    assert choice.starter.key == "static"
    assert choice.because == "No word of the prompt matches a starter, so this is a static site."


@pytest.mark.parametrize(
    ("prompt", "runtime", "key", "because"),
    [
        ("A React app", "python", "python", "The strategy asks for Python, so this is a Python package."),
        ("A React app", "static", "static", "The strategy asks for static files, so this is a static site."),
        ("A page", "node", "react", "The strategy asks for Node and no word of the prompt matches a"),
        ("Python API", "node", "node-api", "The strategy asks for Node and the prompt says “api”, so this is a"),
        ("Vue", "node", "vue", "The strategy asks for Node and the prompt says “vue”, so this is a Vue app."),
    ],
)
def test_a_requested_runtime_overrides_the_prompt(prompt: str, runtime: str, key: str, because: str) -> None:
    choice = choose(prompt, runtime=runtime)

    assert choice.starter.key == key
    assert choice.because.startswith(because)


def test_a_runtime_without_a_starter_is_refused() -> None:
    with pytest.raises(ValueError, match="no starter for the runtime 'cobol'"):
        choose("A React app", runtime="cobol")


def test_the_reason_of_a_choice_is_always_printable(nasty: str) -> None:
    because = choose(nasty).because

    assert because.isprintable()
    assert len(because) < 200


# --- Texts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "name", "title", "description", "package"),
    [
        ("Build a simple todo app with React", "", "Simple todo app", "Simple todo app with React", "simple-todo-app"),
        ("Build a todo app", "groceries", "Groceries", "Todo app", "groceries"),
        ("Build a todo app", "my-todo_app", "My todo app", "Todo app", "my-todo-app"),
        ("Please make me a landing page for a bakery.", "", "Bakery", "Landing page for a bakery.", "bakery"),
        ("A page about bees, and why", "", "Bees", "Bees, and why", "bees"),
        ("A shop with a page for bees", "", "Shop", "Shop with a page for bees", "shop"),
        ("I'd like you to write an app using Vue", "", "App", "App using Vue", "app"),
        ("", "", "Todo list", "A list of things to do.", "todo-list"),
        ("\u200b", "--", "Todo list", "A list of things to do.", "todo-list"),
        ("面包店", "Çelik & Söhne", "Çelik & Söhne", "面包店", "celik-sohne"),
        ("面包店", "", "面包店", "面包店", "todo-list"),
    ],
)
def test_texts_are_made_of_the_name_and_the_prompt(
    prompt: str, name: str, title: str, description: str, package: str
) -> None:
    files = filled(BY_KEY["react"], prompt, name)

    page, manifest = Structure(files["index.html"]), json.loads(files["package.json"])

    assert page.text_of("title") == title
    assert page.meta("description") == description
    assert (manifest["name"], manifest["description"]) == (package, description)


@pytest.mark.parametrize("key", ["react", "static"])
def test_long_texts_are_shortened_with_an_ellipsis(key: str) -> None:
    page = Structure(filled(BY_KEY[key], NASTY["long words"])["index.html"])

    title, description = page.text_of("title"), page.meta("description")

    assert len(title) <= MAX_TITLE
    assert len(description) <= MAX_DESCRIPTION
    assert re.fullmatch(r"Very good app( (Build|a|very|good|app))*…", title)
    assert re.fullmatch(r"Very good app( (Build|a|very|good|app))*…", description)


# --- Files stay well formed ----------------------------------------------------------------------------------------


class Structure(HTMLParser):
    """A page's tags with their attributes' names; its texts and values are kept apart."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[Any] = []
        self.texts: list[tuple[str, str]] = []
        self.metas: dict[str, str] = {}
        self._open = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag
        self.tags.append((tag, [name for name, _ in attrs]))
        values = dict(attrs)
        if tag == "meta" and values.get("name"):
            self.metas[values["name"] or ""] = values["content"] or ""

    def handle_endtag(self, tag: str) -> None:
        self._open = ""
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open, data))

    def handle_comment(self, data: str) -> None:
        self.tags.append(("comment", data))

    def text_of(self, tag: str) -> str:
        return "".join(text for open_tag, text in self.texts if open_tag == tag)

    def meta(self, name: str) -> str:
        return self.metas[name]


def _blocks(tokens: list[Token]) -> list[Any]:
    """A document's structure: each block with its inline tokens."""
    return [(token.type, token.tag, [child.type for child in token.children or ()]) for token in tokens]


def _keys(value: Any) -> Any:
    """A document's keys, at all levels."""
    if isinstance(value, dict):
        return {key: _keys(inner) for key, inner in value.items()}
    return [_keys(inner) for inner in value] if isinstance(value, list) else type(value)


def _code(text: str) -> tuple[str, int]:
    """A script without its strings' contents, and the number of end tags an HTML parser would see in it."""
    return re.sub(r'"(?:[^"\\\n]|\\.)*"', '""', text), text.count("</")


def _python(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.dump(tree)


STRUCTURES: dict[str, Any] = {
    ".html": lambda text: Structure(text).tags,
    ".json": lambda text: _keys(json.loads(text)),
    ".md": lambda text: _blocks(MarkdownIt("commonmark").enable("table").parse(text)),
    ".py": _python,
    ".toml": lambda text: _keys(tomllib.loads(text)),
    **dict.fromkeys((".js", ".ts", ".tsx", ".vue"), _code),
}


@pytest.mark.parametrize("as_name", [False, True])
def test_no_prompt_changes_the_structure_of_files(starter: Starter, nasty: str, as_name: bool) -> None:
    plain = filled(starter, PLAIN, PLAIN)

    files = filled(starter, nasty, nasty if as_name else "")

    assert list(files) == list(plain)
    for path, text in files.items():
        structure = STRUCTURES.get(PurePosixPath(path).suffix, lambda text: text)
        assert structure(text) == structure(plain[path]), path


def test_every_path_and_size_is_within_the_limits(starter: Starter, nasty: str) -> None:
    files = fill(starter, prompt=nasty, name=nasty)

    check_files(files)
    assert [path_fault(file.path) for file in files] == [None] * len(files)


def test_no_file_contains_hidden_characters(starter: Starter, nasty: str) -> None:
    for path, text in filled(starter, nasty, nasty).items():
        assert not HIDDEN.search(text), path


def test_no_placeholder_is_left(starter: Starter) -> None:
    assert [path for path, text in filled(starter, PLAIN).items() if "%%" in text] == []


@pytest.mark.parametrize("key", ["react", "vue"])
def test_a_page_contains_no_vite_variables(key: str) -> None:
    page = filled(BY_KEY[key], NASTY["variables"])["index.html"]

    assert "MODE" in page
    assert re.findall(r"%\S+?%", page) == []


@pytest.mark.parametrize("key", ["react", "vue", "node-api", "python"])
def test_names_are_valid_package_names(key: str, nasty: str) -> None:
    files = filled(BY_KEY[key], nasty, nasty)

    manifest = (
        tomllib.loads(files["pyproject.toml"])["project"] if key == "python" else json.loads(files["package.json"])
    )

    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", manifest["name"])
    assert len(manifest["name"]) <= MAX_PACKAGE


@pytest.mark.parametrize("what", ["quotes", "template", "script", "attribute", "variables", "backslashes"])
def test_an_unusual_title_is_parsed_unchanged(what: str) -> None:
    title = NASTY[what][:MAX_TITLE].strip()
    react, vue = filled(BY_KEY["react"], "", f"A {title}"), filled(BY_KEY["vue"], "", f"A {title}")
    python = filled(BY_KEY["python"], f"About: {title}")

    docstring = ast.get_docstring(ast.parse(python["src/converter/__init__.py"])) or ""
    literals = [re.search(r"TITLE = (\".*\");", text) for text in (react["src/App.tsx"], vue["src/App.vue"])]

    assert [json.loads(literal[1]) for literal in literals if literal] == [_cut(f"A {title}")] * 2
    assert Structure(react["index.html"]).text_of("title") == _cut(f"A {title}")
    assert docstring.splitlines()[0] == tomllib.loads(python["pyproject.toml"])["project"]["description"]
    assert docstring.splitlines()[0] == f"About: {title}"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TITLE else f"{text[: MAX_TITLE - 1].rpartition(' ')[0]}…"


# --- The files themselves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["react", "vue"])
@pytest.mark.parametrize("name", ["", 'Bäcker\'s "Todo"', "react"])
def test_the_lock_file_agrees_with_the_manifest(key: str, name: str) -> None:
    files = filled(BY_KEY[key], "Build a todo app", name)

    manifest, lock = json.loads(files["package.json"]), json.loads(files["package-lock.json"])
    root = lock["packages"].pop("")

    assert (lock["name"], lock["version"]) == (manifest["name"], manifest["version"])
    assert root == {field: manifest[field] for field in root}
    assert set(root) == {"name", "version", "engines", "dependencies", "devDependencies"}
    for wanted in (manifest["dependencies"], manifest["devDependencies"]):
        assert {f"node_modules/{package}" for package in wanted} <= set(lock["packages"])
    for package in lock["packages"].values():
        assert package["integrity"].startswith("sha512-")
        assert "resolved" not in package


def test_an_api_without_dependencies_has_nothing_to_install() -> None:
    files = filled(BY_KEY["node-api"], "")

    assert not {"dependencies", "devDependencies"} & set(json.loads(files["package.json"]))
    assert "package-lock.json" not in files


@pytest.mark.parametrize("name", ["todos.ts", "todos.test.ts", "storage.ts", "focus.ts", "style.css"])
def test_files_shared_by_react_and_vue_are_identical(name: str) -> None:
    react, vue = (filled(BY_KEY[key], PLAIN)[f"src/{name}"] for key in ("react", "vue"))

    assert react == vue


def test_unfilled_files_are_well_formed(starter: Starter) -> None:
    """The image's build compiles every Python file that it finds, and fails if it cannot."""
    for file in (starters._FILES / starter.key).rglob("*.*"):
        if file.is_file() and "__pycache__" not in file.parts:
            structure = STRUCTURES.get(file.suffix, str)
            assert structure(file.read_text()) is not None, file


def test_compiled_files_are_not_part_of_a_starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "compiled" / "module.py"
    source.parent.mkdir()
    source.write_text("x = 1\n")
    py_compile.compile(str(source))
    monkeypatch.setattr(starters, "_FILES", tmp_path)

    files = filled(replace(BY_KEY["python"], key="compiled"), PLAIN)

    assert list(source.parent.rglob("*.pyc"))
    assert files == {"module.py": "x = 1\n"}


def test_all_starters_have_files() -> None:
    assert list(BY_KEY) == ["react", "vue", "static", "python", "node-api"]
    for starter in STARTERS:
        assert len(filled(starter, PLAIN)) >= 3
