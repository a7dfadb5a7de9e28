import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from projects.engine.errors import EngineError
from projects.engine.limits import Limits
from projects.engine.model.asking import Asker
from projects.engine.model.exchanges import Exchange
from projects.engine.repairs.edit import edit
from projects.engine.repairs.fingerprints import Failure
from projects.engine.repairs.patches import Patch, apply, patch_faults, unified_diff
from projects.engine.repairs.repair import repair
from projects.engine.request import Request
from tests.projects.engine.apps import as_json, patch, replacement
from tests.scripted_model import Refuses, ScriptedModel

pytestmark = pytest.mark.once("postgresql")

MakeAsker = Callable[..., Asker]
FILES = {
    "index.html": b"<h1>Todo</h1>\n<p>one</p>\n<p>two</p>\n",
    "src/main.js": b"const a = 1\r\nconst b = 2\r\n",
    "logo.png": b"\x89PNG\xff\x00",
    "package.json": b'{\n    "name": "todo",\n    "dependencies": {"old": "git+ssh://host/old"}\n}\n',
}


def applied(**changes: Any) -> dict[str, bytes]:
    return dict(apply(FILES, Patch.model_validate(patch(**changes)), Limits()).files)


def errors(**changes: Any) -> str:
    return " ".join(patch_faults(FILES, Patch.model_validate(patch(**changes)), Limits()))


# --- Patches that apply ----------------------------------------------------------------------------------------------


def test_only_the_unique_search_text_is_replaced() -> None:
    after = applied(replacements=[replacement("index.html", "<p>one</p>", "<p>1</p>")])

    assert after == {**FILES, "index.html": b"<h1>Todo</h1>\n<p>1</p>\n<p>two</p>\n"}


def test_replacements_in_one_file_apply_in_order() -> None:
    steps = [replacement("index.html", "one", "three"), replacement("index.html", "<p>three", "<p>four")]

    assert b"<p>four</p>" in applied(replacements=steps)["index.html"]


def test_line_endings_are_preserved() -> None:
    after = applied(replacements=[replacement("src/main.js", "a = 1\nconst b", "a = 3\nlet c = 4\nconst b")])

    assert after["src/main.js"] == b"const a = 3\r\nlet c = 4\r\nconst b = 2\r\n"


def test_files_can_be_added_and_deleted() -> None:
    after = applied(new_files=[{"path": "src/new.js", "content": "1\n"}], deleted=["logo.png"])

    assert sorted(after) == ["index.html", "package.json", "src/main.js", "src/new.js"]


@pytest.mark.parametrize(
    "change",
    [
        {"replacements": [replacement("requirements.txt", "", "attrs\n")]},
        {"new_files": [{"path": "requirements.txt", "content": "attrs\n"}]},
    ],
)
def test_an_empty_file_can_be_filled(change: dict[str, Any]) -> None:
    files = {"main.py": b"import attr\n", "requirements.txt": b""}

    after = apply(files, Patch.model_validate(patch(**change)), Limits()).files

    assert after == {**files, "requirements.txt": b"attrs\n"}


def test_newly_imported_packages_are_added_to_the_manifest() -> None:
    code = "import { z } from 'zod'\nimport './main.js'\nimport fs from 'node:fs'\n"
    after = applied(new_files=[{"path": "src/new.js", "content": code}])

    assert as_json(after["package.json"])["dependencies"] == {"old": "git+ssh://host/old", "zod": "*"}
    assert after["package.json"].startswith(b'{\n    "name"')


def test_a_path_alias_is_not_a_package() -> None:
    files = {**FILES, "tsconfig.json": b'{"compilerOptions": {"paths": {"lib/*": ["./source/*"]}}} // ours'}
    change = patch(new_files=[{"path": "new.ts", "content": "import x from 'lib/x'\nimport y from 'src/main.js'\n"}])

    after = apply(files, Patch.model_validate(change), Limits()).files

    assert after["package.json"] == FILES["package.json"]


# --- Patches that do not apply ---------------------------------------------------------------------------------------

BAD = {
    "nowhere": (patch(replacements=[replacement("index.html", "<p>six</p>", "")]), "is not in the file"),
    "twice": (patch(replacements=[replacement("index.html", "<p>", "<b>")]), "occurs 2 times"),
    "nothing to search": (patch(replacements=[replacement("index.html", " ", "x")]), "search text is empty"),
    "no such file": (patch(replacements=[replacement("gone.js", "x", "y")]), "no such file"),
    "no text": (patch(replacements=[replacement("logo.png", "PNG", "y")]), "not text"),
    "there already": (patch(new_files=[{"path": "index.html", "content": "x"}]), "exists already"),
    "escapes": (patch(new_files=[{"path": "../x", "content": "x"}]), "remove the '..'"),
    "too large": (patch(new_files=[{"path": "x", "content": "x" * 2_000_000}]), "bytes, more than"),
    "a folder and a file": (patch(new_files=[{"path": "index.html/x", "content": "x"}]), "cannot be a folder too"),
    "deletes nothing": (patch(deleted=["gone.js"]), "no such file to delete"),
    "deletes what it changes": (
        patch(replacements=[replacement("index.html", "one", "1")], deleted=["index.html"]),
        "both changed and deleted",
    ),
    "deletes all": (patch(deleted=sorted(FILES)), "deletes every file"),
    "changes nothing": (patch(replacements=[replacement("index.html", "one", "one")]), "changes nothing"),
    "too much": (patch(deleted=[f"{number}" for number in range(501)]), "change less"),
    "breaks JSON": (patch(replacements=[replacement("package.json", '"todo",', '"todo"')]), "not JSON"),
    "breaks Python": (patch(new_files=[{"path": "a.py", "content": "def :\n"}]), "not Python"),
    "a package that is not from the registry": (
        patch(replacements=[replacement("package.json", '{"old"', '{"left": "http://host/x.tgz", "old"')]),
        "not a valid version range",
    ),
}


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD.keys())
def test_a_patch_that_does_not_apply_changes_nothing(bad: dict[str, Any], reason: str) -> None:
    assert reason in errors(**bad)

    with pytest.raises(EngineError) as caught:
        applied(**bad)
    assert caught.value.code == "patch_failed"


def test_a_self_overlapping_search_text_is_ambiguous() -> None:
    files = {"a.txt": b"aXaXa"}
    change = Patch.model_validate(patch(replacements=[replacement("a.txt", "aXa", "b")]))

    assert "2 times" in " ".join(patch_faults(files, change, Limits()))


# --- The diff --------------------------------------------------------------------------------------------------------


def test_git_can_apply_the_diff(tmp_path: Path) -> None:
    before = {"a.txt": b"one\ntwo\x0cstill two\nthree", "gone.txt": b"x\n", "src/crlf.js": b"a\r\nb\r\n", "same": b"s"}
    change = patch(
        replacements=[replacement("a.txt", "three", "3\nfour"), replacement("src/crlf.js", "b", "c")],
        new_files=[{"path": "new/file.txt", "content": "no line end"}],
        deleted=["gone.txt"],
    )
    done = apply(before, Patch.model_validate(change), Limits())
    for path, content in before.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)

    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=done.diff.encode(), check=True)

    found = {
        str(file.relative_to(tmp_path)): file.read_bytes()
        for file in tmp_path.rglob("*")
        if file.is_file() and ".git" not in file.parts
    }
    assert found == done.files


@pytest.mark.parametrize("ending", [b"", b"\n"])
@pytest.mark.parametrize("change", ["", "new\n", "7\n7\n7\n", "old"])
@pytest.mark.parametrize("at", [0, 1, 5, 38, 39])
def test_the_diff_of_a_change_anywhere_in_a_file_applies(at: int, change: str, ending: bytes, tmp_path: Path) -> None:
    lines = [b"%d\n" % (number % 10) for number in range(39)] + [b"last" + ending]
    before = b"".join(lines)
    after = b"".join([*lines[:at], change.encode(), *lines[at + 1 :]])
    (tmp_path / "a.txt").write_bytes(before)

    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    diff = unified_diff({"a.txt": before}, {"a.txt": after}).encode()
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=diff, check=True)

    assert (tmp_path / "a.txt").read_bytes() == after


def test_the_diff_of_a_large_file_is_fast() -> None:
    lines = [b"%d\n" % (number * number % 997) for number in range(200_000)]
    after = [*lines[:100_000], b"new\n", *lines[100_001:]]

    started = time.monotonic()
    diff = unified_diff({"a": b"".join(lines)}, {"a": b"".join(after)})

    assert time.monotonic() - started < 2
    assert diff.count("\n") == 3 + 1 + 3 + 2 + 3


def test_a_binary_file_is_only_named_in_the_diff() -> None:
    done = apply(FILES, Patch.model_validate(patch(deleted=["logo.png"])), Limits())

    assert "Binary files a/logo.png and b/logo.png differ" in done.diff


# --- With a model ----------------------------------------------------------------------------------------------------


def test_a_prompt_changes_a_project_by_a_patch(
    model: ScriptedModel, make_asker: MakeAsker, exchanges: list[Exchange]
) -> None:
    model.says("patch", patch(replacements=[replacement("index.html", "Todo", "Einkauf")]))

    done = edit(make_asker(), Request(prompt="Call it Einkauf in index.html"), FILES, Limits())

    assert done.files["index.html"].startswith(b"<h1>Einkauf</h1>")
    assert "-<h1>Todo</h1>\n+<h1>Einkauf</h1>\n" in done.diff
    assert done.summary == "Changed."
    assert [exchange.stage for exchange in exchanges] == ["edit"]
    text = model.requests[0]["messages"][1]["content"]
    assert "<h1>Todo</h1>" in text
    assert "logo.png" in text
    assert "PNG\\xff" not in text


def test_a_patch_that_does_not_apply_is_sent_back_once(model: ScriptedModel, make_asker: MakeAsker) -> None:
    good = patch(replacements=[replacement("index.html", "Todo", "Done")])
    model.says("patch", patch(replacements=[replacement("index.html", "<p>", "<b>")]), good)

    done = edit(make_asker(), Request(prompt="x"), FILES, Limits())

    assert b"Done" in done.files["index.html"]
    assert "occurs 2 times" in model.requests[1]["messages"][-1]["content"]


def test_a_second_patch_that_does_not_apply_is_an_error(model: ScriptedModel, make_asker: MakeAsker) -> None:
    model.says("patch", *[patch(deleted=["../../etc/passwd"])] * 2)

    with pytest.raises(EngineError) as caught:
        edit(make_asker(), Request(prompt="x"), FILES, Limits())

    assert caught.value.code == "patch_failed"


def test_a_repair_gets_the_evidence_and_the_files_it_names(
    model: ScriptedModel, make_asker: MakeAsker, exchanges: list[Exchange]
) -> None:
    files = {**FILES, "src/other.js": b"other" * 100}
    model.says(
        "patch",
        Refuses(400, "too many tokens", "context_length_exceeded"),
        patch(replacements=[replacement("src/main.js", "a = 1", "a = 9")]),
    )
    failure = Failure("build", "syntax_error", "build", "The code cannot be parsed.", ("src/main.js:1:7: Unexpected",))

    done = repair(
        make_asker(), failure, files, Limits(), prompt="A todo app", log="log " * 9, tried=["Turned b around."]
    )

    assert b"a = 9" in done.files["src/main.js"]
    whole, shorter = (request["messages"][1]["content"] for request in model.requests)
    assert "otherother" in whole
    assert "Turned b around." in whole
    assert "otherother" not in shorter
    assert "const a = 1" in shorter
    assert "Unexpected" in shorter
    assert [exchange.stage for exchange in exchanges] == ["repair", "repair"]
