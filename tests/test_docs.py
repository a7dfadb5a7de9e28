"""The docs match the code: named files exist, links work, and all settings are listed with their defaults."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.place import ROOT, read_env_file

pytestmark = pytest.mark.once

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
SETTINGS = ROOT / "docs" / "configure.md"
# Pages that name parts of the code, and where the code is.
ABOUT_CODE = sorted(
    [
        *(ROOT / "CONTRIBUTING.md", ROOT / "docs" / "adding-a-runtime.md", ROOT / "docs" / "architecture.md"),
        *(ROOT / "docs" / "decisions").glob("*.md"),
    ]
)
CODE = ("chef", "projects", "builds", "scripts", "tests")
# The first parts of paths in the repository.
TOP = {path.name for path in ROOT.iterdir()} - {".venv", "var"}  # these two are made by the set-up
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
# A name, dotted or not, with arguments or without. None of ours ends in an underscore; variables of glibc do.
_IDENTIFIER = re.compile(r"((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*)(?<!_)(?:\(.*\))?")
_NAMED = re.compile(r"`(?:[A-Za-z_]+\.)*([A-Za-z_]+)` in `([\w./-]+\.py)`")


def names_of(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


each_page = pytest.mark.parametrize("page", PAGES, ids=names_of(PAGES))


def prose_of(page: Path) -> str:
    """The page without its code blocks."""
    return _FENCED.sub("", page.read_text())


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub makes of headings: lower case, no punctuation, hyphens for blanks."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def paths_in(page: Path) -> Iterator[str]:
    """Paths in backquotes that begin with a name from the repository's top folder."""
    for text in _CODE.findall(prose_of(page)):
        path = text.removeprefix("./").partition(" ")[0]
        if re.fullmatch(r"[\w./-]+", path) and ("/" in path or "." in path) and path.partition("/")[0] in TOP:
            yield path


@each_page
def test_links_work(page: Path) -> None:
    broken = []
    for link in _LINK.findall(prose_of(page)):
        target, _, anchor = link.partition("#")
        if ":" in target:
            continue  # an external link
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            broken.append(link)

    assert broken == []


@each_page
def test_named_paths_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # history names former files

    missing = [path for path in paths_in(page) if not (ROOT / path).exists()]

    assert missing == []


@each_page
def test_named_parts_of_modules_exist(page: Path) -> None:
    missing = [
        f"{name} in {path}"
        for name, path in _NAMED.findall(prose_of(page))
        if not re.search(rf"\b{name}\b", (ROOT / path).read_text())
    ]

    assert missing == []


@pytest.fixture(scope="module")
def words() -> set[str]:
    """Every word of the Python files, names and strings alike: docs name codes and settings too."""
    files = [file for folder in CODE for file in (ROOT / folder).rglob("*.py") if file != Path(__file__)]
    return {word for file in files for word in re.findall(r"\w+", file.read_text())}


@pytest.mark.parametrize("page", ABOUT_CODE, ids=names_of(ABOUT_CODE))
def test_named_identifiers_exist(page: Path, words: set[str]) -> None:
    names = [match[1] for text in _CODE.findall(prose_of(page)) if (match := _IDENTIFIER.fullmatch(text))]

    missing = [name for name in names if not words.issuperset(name.split("."))]

    assert missing == []


def test_every_page_is_linked_from_the_readme() -> None:
    reached, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        reached.add(page)
        links = {(page.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(prose_of(page))}
        left += [file for file in links - reached if file.suffix == ".md" and file.exists()]

    assert set(PAGES) <= reached


def test_settings_page_has_every_setting_and_its_default() -> None:
    listed = read_env_file(ROOT / ".env.example", commented=True)
    rows = [line.split(" | ") for line in SETTINGS.read_text().splitlines() if line.startswith("| `")]
    described = {name: row for row in rows for name in re.findall(r"`([A-Z][A-Z0-9_]+)`", row[0])}

    wrong_defaults = [name for name in described if listed.get(name, "") not in described[name][-1]]

    assert set(described) == set(listed)
    assert wrong_defaults == []


def test_readme_fits_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 90
