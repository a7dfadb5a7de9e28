"""The folder tree."""

import pytest

from builds.pages.files.tree import Folder, crumbs_of, rows_of, tree_of

pytestmark = pytest.mark.once


def test_a_tree_has_folders_first_and_opens_the_current_ones() -> None:
    files = [("b.txt", 1), ("A/x/y.txt", 2), ("A/z.txt", 3), *((f"many/{number}", 0) for number in range(40))]

    rows = rows_of(tree_of(files), current="A/x/y.txt")

    listed = [(row.kind, row.it.path, row.is_open) for row in rows if not row.it.path.startswith("many")]
    assert listed == [
        ("open", "A", True),
        ("open", "A/x", True),
        ("file", "A/x/y.txt", False),
        ("close", "A/x", False),
        ("file", "A/z.txt", False),
        ("close", "A", False),
        ("file", "b.txt", False),
    ]
    assert [row.is_open for row in rows if row.kind == "open" and row.it.path == "many"] == [False]


def test_with_few_files_all_folders_are_open() -> None:
    rows = rows_of(tree_of([("a/b/c.txt", 1), ("d/e.txt", 1)]))

    assert [row.is_open for row in rows if row.kind == "open"] == [True, True, True]


def test_a_folder_counts_everything_below_it() -> None:
    root = tree_of((name, 10) for name in ["b.txt", "a/z.txt", "a/b/c.txt", "a-b.txt"])

    assert (root.count, root.size) == (4, 40)
    [inner] = root.folders
    assert (inner.name, inner.path, inner.count, inner.size) == ("a", "a", 2, 20)
    assert [(file.name, file.path, file.size) for file in root.files] == [
        ("a-b.txt", "a-b.txt", 10),
        ("b.txt", "b.txt", 10),
    ]


def test_a_folder_is_found_by_its_path() -> None:
    root = tree_of([("dist/x/1.js", 1), ("dist/index.html", 5)])

    found = root.at("dist/x")

    assert isinstance(found, Folder)
    assert [file.path for file in found.files] == ["dist/x/1.js"]
    assert root.at("") is root
    assert root.at("dist/y") is None
    assert root.at("nowhere/at/all") is None
    assert crumbs_of("a/b") == [("a", "a"), ("b", "a/b")]
