from typing import Any

import pytest

from projects.engine.repairs.decisions import Built, Ending, decide
from projects.engine.repairs.fingerprints import Failure, distinct_errors, fingerprint

pytestmark = pytest.mark.once("postgresql")

TYPES = "src/App.tsx(12,5): error TS2322: Type 'string' is not assignable to type 'number'."
MODULE = 'Cannot find module "left-pad" imported from src/main.js'


def failure(*evidence: str, code: str = "build_failed", cls: str = "build", **more: Any) -> Failure:
    return Failure(cls, code, more.pop("phase", "build"), "It failed.", evidence, **more)


# --- Fingerprints ----------------------------------------------------------------------------------------------------

SAME = {
    "line numbers": (TYPES, TYPES.replace("(12,5)", "(48,11)")),
    "line numbers with colons": ("src/a.js:3:9: Unexpected token", "src/a.js:14:2: Unexpected token"),
    "Python's lines": ('File "app.py", line 3, in f: bad', 'File "app.py", line 81, in f: bad'),
    "folders before the project": ("/workspace/app/src/a.js: bad thing", "/home/me/todo/src/a.js: bad thing"),
    "hashes in names": ("dist/index-B4xT9k2a.js is too large", "dist/index-Zz81kQ0b.js is too large"),
    "hashes": ("commit 3f2a9c1d77 is missing", "commit 88ab01cde2 is missing"),
    "times": ("it failed after 1.25 s of work", "it failed after 17 s of work"),
    "long texts in quotes": (f"cannot parse '{'a b ' * 30}'", f"cannot parse '{'c d ' * 30}'"),
    "spaces": ("error:   bad  thing", "error: bad thing"),
}
DIFFERENT = {
    "modules": (MODULE, MODULE.replace("left-pad", "right-pad")),
    "files": (TYPES, TYPES.replace("App.tsx", "Item.tsx")),
    "types": (TYPES, TYPES.replace("'number'", "'boolean'")),
    "the tool's error codes": (TYPES, TYPES.replace("TS2322", "TS2345")),
    "folders in the project": ("src/a/x.js: bad thing", "src/b/x.js: bad thing"),
    "versions": ("No matching version found for left-pad@^9.0.0.", "No matching version found for left-pad@^8.1.0."),
    "versions of Python": (
        "No matching distribution found for attrs==99.1",
        "No matching distribution found for attrs==98.2",
    ),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME.keys())
def test_differences_between_equal_builds_do_not_change_the_fingerprint(one: str, other: str) -> None:
    assert fingerprint(failure(one)) == fingerprint(failure(other))


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_differences_caused_by_code_change_the_fingerprint(one: str, other: str) -> None:
    assert fingerprint(failure(one)) != fingerprint(failure(other))


def test_a_file_named_on_its_own_line_changes_the_fingerprint() -> None:
    evidence = [("SyntaxError: Unexpected token ';'", f"file:///workspace/app/{name}.js:3", "a = b);") for name in "ab"]

    one, other = (fingerprint(failure(*lines)) for lines in evidence)

    assert one != other
    assert one == fingerprint(failure(evidence[0][0], "file:///workspace/app/a.js:14", "a = b);"))


def test_the_verdict_s_code_is_part_of_the_fingerprint() -> None:
    assert fingerprint(failure(TYPES)) != fingerprint(failure(TYPES, code="type_error"))
    assert fingerprint(failure()) == fingerprint(failure())  # without evidence, the message is used


def test_errors_are_counted_once_and_frames_are_not_counted() -> None:
    evidence = [
        TYPES,
        TYPES.replace("12,5", "30,1"),
        MODULE,
        "  12 |   return text",
        "    at run (node:internal)",
        "^^^",
    ]

    assert len(distinct_errors(failure(*evidence, "Found 3 errors."))) == 2


SINGLE = {
    "of Node": (
        "SyntaxError: Unexpected token ';'",
        "> node build.js",
        "file:///workspace/app/lib/page.js:1",
        "export const page = (title => `<h1>${title}</h1>`;",
    ),
    "thrown": (
        "throw new Error('No colour is set.');",
        "Error: No colour is set.",
        "file:///workspace/app/build.js:1",
        "      ^",
        "Node.js v22.23.3",
    ),
    "of Python": ("SyntaxError: 'return' outside function", '  File "main.py", line 5', "    return ready()"),
    "of no known tool": ("not ok 1 - a title is a heading", "# fail 1", "# duration_ms 51.2"),
}


@pytest.mark.parametrize("evidence", SINGLE.values(), ids=SINGLE.keys())
def test_the_output_of_one_error_counts_once(evidence: tuple[str, ...]) -> None:
    assert len(distinct_errors(failure(*evidence))) == 1


def test_an_installation_counts_as_one_error() -> None:
    evidence = ["npm error 404  'nope@*' is not in this registry.", "Error: could not fetch", "Error: gave up"]

    assert len(distinct_errors(failure(*evidence, phase="installation"))) == 1


SEVERAL = {
    "of TypeScript": (TYPES, TYPES.replace("App", "Item"), TYPES.replace("TS2322", "TS2345")),
    "of esbuild": (
        '✘ [ERROR] Could not resolve "nope"',
        "    src/a.js:1:7:",
        "      1 │ import 'nope'",
        '✘ [ERROR] Could not resolve "none"',
        '✘ [ERROR] Expected ";" but found "b"',
    ),
    "of svelte-check": tuple(f'1721 ERROR "src/App.svelte" 2:9 "The type {name} is wrong."' for name in "abc"),
    "of Python": ("SyntaxError: invalid syntax", '  File "a.py", line 5', "TabError: tabs", "IndentationError: deep"),
}


@pytest.mark.parametrize("evidence", SEVERAL.values(), ids=SEVERAL.keys())
def test_several_errors_are_counted(evidence: tuple[str, ...]) -> None:
    assert len(distinct_errors(failure(*evidence))) == 3


def test_a_verdict_of_the_api_becomes_a_failure() -> None:
    verdict = {
        "class": "build",
        "code": "type_error",
        "phase": "build",
        "message": "m",
        "evidence": [TYPES],
        "hint": "h",
    }

    assert Failure.from_json(verdict) == Failure("build", "type_error", "build", "m", (TYPES,), "h", False)


# --- Decisions -------------------------------------------------------------------------------------------------------


def errors(*names: str, **more: Any) -> Failure:
    return failure(*(f"src/{name}.js: error: {name} is wrong" for name in names), **more)


TWO, ONE, OTHER, NONE = errors("a", "b"), errors("a"), errors("c"), None
INSTALL = errors("install", phase="installation")

CASES = {
    "a first failure": ([TWO], None, 0),
    "fixed": ([TWO, NONE], Ending.FIXED, 1),
    "first build succeeds": ([NONE], Ending.NOT_NEEDED, 0),
    "fewer errors": ([TWO, OTHER], None, 1),
    "all but the first error": ([TWO, ONE], None, 1),
    "the same errors again": ([ONE, ONE], Ending.SEEN_BEFORE, 0),
    "in circles": ([ONE, OTHER, ONE], Ending.SEEN_BEFORE, 0),
    "as many errors": ([TWO, errors("c", "d")], Ending.NO_FEWER_ERRORS, 0),
    "more errors": ([OTHER, TWO], Ending.NO_FEWER_ERRORS, 0),
    "the next single error": ([ONE, OTHER], None, 0),
    "a later phase": ([INSTALL, TWO], None, 1),
    "an earlier phase": ([TWO, INSTALL], Ending.NO_FEWER_ERRORS, 0),
    "three repairs": (
        [errors(*"abcd"), errors(*"efg"), errors(*"hi"), errors("j")],
        Ending.THREE_TRIES,
        3,
    ),
    "two repairs": ([errors(*"abcd"), errors(*"efg"), errors(*"hi")], None, 2),
    "a failure of the system": ([failure("x", cls="infra")], Ending.NOT_OURS, 0),
    "a temporary failure": ([failure("x", code="registry_unavailable", retryable=True)], Ending.NOT_OURS, 0),
    "cancelled": ([TWO, failure("x", cls="cancelled")], Ending.NOT_OURS, 0),
}


@pytest.mark.parametrize(("history", "ending", "best"), CASES.values(), ids=CASES.keys())
def test_the_next_step_after_a_history_of_builds(
    history: list[Failure | None], ending: Ending | None, best: int
) -> None:
    decision = decide([Built(number, each) for number, each in enumerate(history)])

    assert (decision.ending, decision.best) == (ending, best)
    assert decision.try_again is (ending is None)


@pytest.mark.parametrize(("left", "ending"), [(None, None), (50_000, None), (500, Ending.BUDGET)])
def test_a_repair_needs_tokens(left: int | None, ending: Ending | None) -> None:
    assert decide([Built(1, TWO)], tokens_left=left).ending is ending


def test_a_decision_needs_a_build() -> None:
    with pytest.raises(ValueError, match="first build"):
        decide([])
