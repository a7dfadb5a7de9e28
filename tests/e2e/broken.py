"""Broken projects written by a model, its answers to repair requests, and the expected end of each fix loop.

The mistakes are those that real models make and that the engine's own checks let through; the answers are good, useless
or harmful. Answers are texts, patches, or anything else that a scripted model can send.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.e2e.corpus import MARKED
from tests.projects.engine.apps import patch, plan, planned, replacement
from tests.scripted_model import Answer, Refuses

Says = str | Mapping[str, Any] | Answer


@dataclass(frozen=True)
class Broken:
    """`builds`: the verdicts' codes in order, None for a completed build. `repairs`: for each repair, the error code if
    it made no revision, None if it was built. `best`: the revision that is kept.

    `changes` override the plan; `config` and `strategy` are sent in the request.
    """

    files: Mapping[str, str]
    ending: str | None
    builds: Sequence[str | None]
    answers: Sequence[Says] = ()
    repairs: Sequence[str | None] = ()
    best: int | None = 1
    changes: Mapping[str, Any] = field(default_factory=dict)
    strategy: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plan(self) -> Mapping[str, Any]:
        usual = {"dependencies": [], "scripts": [script("build", "node build.js")]}
        return plan(*map(planned, self.files), **{**usual, **self.changes})


def repaired(
    files: Mapping[str, str], *tries: tuple[str, Says], ending: str = "fixed", best: int | None = None, **more: Any
) -> Broken:
    """Each repair is (verdict code of the failed build, the model's answer); the build after the last one completes."""
    builds = [*(code for code, _ in tries), None]
    answers, repairs = [answer for _, answer in tries], [None] * len(tries)
    return Broken(files, ending, builds, answers, repairs, best or len(builds), **more)


def script(name: str, command: str) -> dict[str, str]:
    return {"name": name, "command": command}


def package(name: str, range: str = "*") -> dict[str, Any]:
    return {"name": name, "range": range, "development": False}


def change(path: str, search: str, replace: str, **more: Any) -> dict[str, Any]:
    return patch(replacements=[replacement(path, search, replace)], **more)


def new_file(path: str, content: str) -> dict[str, Any]:
    return patch(new_files=[{"path": path, "content": content}])


# --- Node ------------------------------------------------------------------------------------------------------------

BUILD = """\
import { mkdirSync, writeFileSync } from "node:fs";
import { page } from "./lib/page.js";

mkdirSync("dist", { recursive: true });
writeFileSync("dist/index.html", page("Hello"));
"""
PAGE = "export const page = (title) => `<h1>${title}</h1>`;\n"
SITE = {"build.js": BUILD, "lib/page.js": PAGE}
WRONG_IMPORT = {**SITE, "build.js": BUILD.replace("/page.js", "/Page.js")}
UNCLOSED = {**SITE, "lib/page.js": PAGE.replace("title)", "title")}

RIGHT_IMPORT = change("build.js", "./lib/Page.js", "./lib/page.js")
CLOSED = change("lib/page.js", "(title", "(title)")
README = new_file("README.md", "# How to build\n\nRun `npm run build`.\n")
ASIDE = change("lib/page.js", "export const", "// The page.\n\nexport const")
PROSE = "You have to close the parenthesis after title in lib/page.js, then it should work."
UNFIT = change("lib/page.js", "function page(title {", "function page(title) {")
ESCAPE = new_file("../escape.js", "export default 1;\n")

MARKDOWN = {"page.md": "# Hello\n"}
RENDER = [script("build", "mkdir -p dist && marked -i page.md -o dist/index.html")]
SCRIPTS = '  "scripts": {'

COMPLAINTS = ["No colour is set.", "The title is missing.", "There is no footer.", "Nobody has chosen a font."]


def complaining(of: str) -> str:
    return f"throw new Error({of!r});\n"


CHECKED = """\
import test from "node:test";
import assert from "node:assert/strict";
import { page } from "../lib/page.js";

test("a title is a heading", () => assert.equal(page("Hello"), "<h1>Hello</h1>"));
"""

COMPILER = {"dependencies": [package("typescript", "~5.9.3")], "scripts": [script("build", "tsc")]}
SETTINGS = '{ "compilerOptions": { "target": "ES2022", "outDir": "dist", "strict": true, "types": [] } }\n'
COUNTER = """\
export function count(from: number): number {
  let counter: number = "zero";
  counter += from;
  return counter;
}
"""

IN_NODE = {
    "nothing is wrong": Broken(SITE, "not_needed", [None]),
    "wrong case in an import": repaired(WRONG_IMPORT, ("module_not_found", RIGHT_IMPORT)),
    "a tool that is not installed": repaired(
        MARKDOWN,
        (
            "command_not_found",
            change("package.json", SCRIPTS, f'  "dependencies": {{ "marked": "{MARKED}" }},\n{SCRIPTS}'),
        ),
        changes={"scripts": RENDER},
    ),
    "a version that does not exist": repaired(
        MARKDOWN,
        ("dependency_not_found", change("package.json", "^99.0.0", "^98.0.0")),
        ("dependency_not_found", change("package.json", "^98.0.0", f"^{MARKED}")),
        changes={"scripts": RENDER, "dependencies": [package("marked", "^99.0.0")]},
    ),
    "a package that does not exist": repaired(
        SITE,
        (
            "dependency_not_found",
            change("package.json", ',\n  "dependencies": {\n    "@chef-has/no-such-package": "*"\n  }', ""),
        ),
        changes={"dependencies": [package("@chef-has/no-such-package")]},
    ),
    "conflicting peer dependencies": repaired(
        SITE,
        ("dependency_conflict", change("package.json", ',\n    "react-dom": "17.0.2"', "")),
        changes={"dependencies": [package("react", "18.2.0"), package("react-dom", "17.0.2")]},
    ),
    "a type error": repaired(
        {"tsconfig.json": SETTINGS, "src/counter.ts": COUNTER},
        ("type_error", change("src/counter.ts", '"zero"', "0")),
        changes=COMPILER,
    ),
    "settings that TypeScript does not know": repaired(
        {"tsconfig.json": SETTINGS.replace("ES2022", "ES2099"), "src/counter.ts": COUNTER.replace('"zero"', "0")},
        ("type_error", change("tsconfig.json", "ES2099", "ES2022")),
        changes=COMPILER,
    ),
    "a Node version that does not exist": repaired(
        {**SITE, ".nvmrc": "12\n"}, ("unsupported_runtime_version", change(".nvmrc", "12", "22"))
    ),
    "settings without a value": repaired(
        {
            "build.js": BUILD.replace(
                '"./lib/page.js";', '"./lib/page.js";\nimport site from "./site.json" with { type: "json" };'
            ).replace('"dist/index.html"', "`${site.output}/index.html`"),
            "lib/page.js": PAGE,
            "site.json": '{ "out": "dist" }\n',
        },
        ("build_failed", change("site.json", '"out"', '"output"')),
    ),
    "a script that calls a missing one": repaired(
        SITE,
        ("missing_script", change("package.json", "npm run compile", "node build.js")),
        changes={"scripts": [script("build", "npm run compile")]},
    ),
    "the wrong folder": repaired(
        {**SITE, "build.js": BUILD.replace('"dist', '"target')},
        (
            "no_output",
            patch(replacements=[replacement("build.js", f'"target{end}', f'"dist{end}') for end in ('"', "/")]),
        ),
    ),
    "its own test fails": repaired(
        {**SITE, "lib/page.js": PAGE.replace("h1", "h2"), "test/page.test.js": CHECKED},
        (
            "build_failed",
            patch(
                replacements=[
                    replacement("lib/page.js", before, after) for before, after in (("<h2", "<h1"), ("/h2", "/h1"))
                ]
            ),
        ),
        changes={"scripts": [script("build", "node --test && node build.js")]},
    ),
    "a second mistake behind the first": repaired(
        {**UNCLOSED, "build.js": f'import "./lib/style.js";\n{BUILD}', "lib/style.js": 'import "./colours.js";\n'},
        ("syntax_error", CLOSED),
        ("module_not_found", new_file("lib/colours.js", "export const red = '#f00';\n")),
    ),
    "a second mistake behind a shorter one": repaired(
        {**UNCLOSED, "build.js": BUILD.replace("/page.js", "/Page.js")},
        ("module_not_found", RIGHT_IMPORT),
        ("syntax_error", CLOSED),
    ),
}

# --- Python ----------------------------------------------------------------------------------------------------------

PYTHON = {"runtime": "python", "scripts": []}


CODE = "def ready() -> bool:\n    return True\n"
# Accepted by a parser but not by the compiler; a different error for each module.
MISTAKES = {"main": "return ready()", "menu": "break", "stock": "continue", "users": "await ready()"}


def python(*broken: str) -> dict[str, str]:
    """Modules of an app, some of them broken."""
    return {f"{name}.py": f"{CODE}{mistake}\n" if name in broken else CODE for name, mistake in MISTAKES.items()}


def python_patch(*, right: Sequence[str] = (), wrong: Sequence[str] = ()) -> dict[str, Any]:
    righted = [replacement(f"{name}.py", f"{CODE}{MISTAKES[name]}\n", CODE) for name in right]
    return patch(
        replacements=righted + [replacement(f"{name}.py", CODE, f"{CODE}{MISTAKES[name]}\n") for name in wrong]
    )


LAYOUT = 'HEAD = "<h1>Hello</h1>"\n'
RENDERING = "mkdir -p dist && PYTHONPATH=/workspace/tools/deps python render.py > dist/index.html"

IN_PYTHON = {
    "Python syntax": repaired(python("menu"), ("syntax_error", python_patch(right=["menu"])), changes=PYTHON),
    "fewer errors each time": repaired(
        python("main", "menu", "stock"),
        ("syntax_error", python_patch(right=["stock"])),
        ("syntax_error", python_patch(right=["main"])),
        ("syntax_error", python_patch(right=["menu"])),
        changes=PYTHON,
    ),
    "a module of another name": repaired(
        {
            "render.py": "from page.layouts import HEAD\n\nprint(HEAD)\n",
            "page/__init__.py": "",
            "page/layout.py": LAYOUT,
        },
        ("module_not_found", change("render.py", "layouts", "layout")),
        changes=PYTHON,
        strategy={"buildCommand": RENDERING},
    ),
    "a package of another name": repaired(
        {"render.py": 'import attr\n\nprint(f"<h1>{attr.__version__}</h1>")\n'},
        ("module_not_found", new_file("requirements.txt", "attrs>=23\n")),
        changes=PYTHON,
        strategy={"buildCommand": RENDERING},
    ),
    "packages that setuptools cannot tell apart": repaired(
        {"alpha/__init__.py": CODE, "beta/__init__.py": CODE},
        (
            "install_failed",
            change("pyproject.toml", "[project]", '[tool.setuptools]\npackages = ["alpha", "beta"]\n\n[project]'),
        ),
        changes={**PYTHON, "package": True},
    ),
}

# --- Answers that do not help ----------------------------------------------------------------------------------------

USELESS = {
    "an unrelated patch": Broken(UNCLOSED, "seen_before", ["syntax_error"] * 2, [README], [None]),
    "a patch that only moves the lines": Broken(UNCLOSED, "seen_before", ["syntax_error"] * 2, [ASIDE], [None]),
    "in circles": Broken(
        {"build.js": complaining(COMPLAINTS[0])},
        "seen_before",
        ["build_failed"] * 3,
        [change("build.js", *COMPLAINTS[:2]), change("build.js", *COMPLAINTS[1::-1])],
        [None, None],
    ),
    "always something else": Broken(
        {"build.js": complaining(COMPLAINTS[0])},
        "three_tries",
        ["build_failed"] * 4,
        [change("build.js", before, after) for before, after in pairwise(COMPLAINTS)],
        [None] * 3,
    ),
    "prose": Broken(UNCLOSED, "three_tries", ["syntax_error"], [PROSE] * 6, ["answer_not_json"] * 3),
    "prose, then a patch": Broken(UNCLOSED, "fixed", ["syntax_error", None], [PROSE, CLOSED], [None], 2),
    "patches that do not fit, then one that does": Broken(
        UNCLOSED, "fixed", ["syntax_error", None], [UNFIT, UNFIT, CLOSED], ["patch_failed", None], 2
    ),
    "the endpoint refuses": Broken(
        UNCLOSED, "no_repair", ["syntax_error"], [Refuses(401, "Who are you?")], ["endpoint_unauthorized"]
    ),
}

# --- Answers that do harm --------------------------------------------------------------------------------------------

HOG = "const hoard = [];\nfor (;;) hoard.push(Buffer.alloc(1 << 24, 1));\n"

HARMFUL = {
    "more errors": Broken(
        python("menu"),
        "no_fewer_errors",
        ["syntax_error"] * 2,
        [python_patch(wrong=["main", "stock", "users"])],
        [None],
        changes=PYTHON,
    ),
    "better, then worse": Broken(
        python("menu", "stock", "users"),
        "no_fewer_errors",
        ["syntax_error"] * 3,
        [python_patch(right=["stock", "users"]), python_patch(wrong=["main", "stock"])],
        [None, None],
        best=2,
        changes=PYTHON,
    ),
    "it cannot even be installed": Broken(
        WRONG_IMPORT,
        "no_fewer_errors",
        ["module_not_found", "dependency_not_found"],
        [change("package.json", SCRIPTS, f'  "dependencies": {{ "@chef-has/no-such-package": "^1.0.0" }},\n{SCRIPTS}')],
        [None],
    ),
    "the entry is deleted, and comes back": repaired(
        UNCLOSED,
        ("syntax_error", patch(deleted=["build.js"])),
        (
            "module_not_found",
            patch(new_files=[{"path": "build.js", "content": BUILD}], replacements=CLOSED["replacements"]),
        ),
    ),
    "the build is switched off, and on again": repaired(
        UNCLOSED,
        ("syntax_error", change("package.json", "node build.js", "echo done")),
        (
            "no_output",
            patch(replacements=[replacement("package.json", "echo done", "node build.js"), *CLOSED["replacements"]]),
        ),
    ),
    "a file outside of the project": Broken(
        UNCLOSED, "three_tries", ["syntax_error"], [ESCAPE] * 6, ["patch_failed"] * 3
    ),
    "all memory is used up": Broken(
        UNCLOSED,
        "not_ours",
        ["syntax_error", "out_of_memory"],
        [patch(replacements=[*CLOSED["replacements"], replacement("build.js", "mkdirSync(", f"{HOG}mkdirSync(")])],
        [None],
        strategy={"memory": "96m"},
    ),
}

# --- Failures that are not the code's --------------------------------------------------------------------------------

NOT_THE_CODE = {
    "it takes too long": Broken(
        {"build.js": "setTimeout(() => {}, 600_000);\n"}, "not_ours", ["timeout"], strategy={"timeout": 5000}
    ),
    "it takes too much memory": Broken({"build.js": HOG}, "not_ours", ["out_of_memory"], strategy={"memory": "96m"}),
    "it needs the network": Broken(
        {"build.js": 'import { lookup } from "node:dns/promises";\n\nawait lookup("example.org");\n'},
        "not_ours",
        ["egress_blocked"],
    ),
}
CANCELLED = "it is cancelled"
UNREADABLE = "its secrets cannot be read"
SUPERSEDED = "the owner changes the project meanwhile"
DISTURBED = {
    CANCELLED: Broken({"build.js": "setTimeout(() => {}, 600_000);\n"}, "not_ours", ["cancelled"]),
    UNREADABLE: Broken(UNCLOSED, "not_ours", ["environment_unreadable"]),
    SUPERSEDED: Broken(UNCLOSED, "superseded", ["syntax_error"], [CLOSED], ["project_changed"]),
}

# --- Options and limits ----------------------------------------------------------------------------------------------

TALE = "All work and no play makes a dull model.\n"
COSTLY = {"build.js": complaining(COMPLAINTS[0]), "notes.md": TALE * 400}

LIMITED = {
    "repairs are not wanted": Broken(UNCLOSED, None, ["syntax_error"], best=None, config={"autoFix": False}),
    "no tokens are left for a repair": Broken(COSTLY, "budget", ["build_failed"], config={"maxTokens": 9_500}),
    "enough tokens are left for one repair": Broken(
        {"build.js": complaining(COMPLAINTS[0])},
        "budget",
        ["build_failed"] * 2,
        [change("build.js", COMPLAINTS[0], COMPLAINTS[1], summary=TALE * 400)],
        [None],
        config={"maxTokens": 9_500},
    ),
    "too few tokens are left to read the files": Broken(
        {"build.js": complaining(COMPLAINTS[0]), "notes.md": TALE * 800},
        "budget",
        ["build_failed"],
        [],
        ["budget_reached"],
        config={"maxTokens": 16_000},
    ),
    "too few tokens are left to answer": Broken(
        {"build.js": complaining(COMPLAINTS[0])},
        "budget",
        ["build_failed"],
        [change("build.js", COMPLAINTS[0], COMPLAINTS[1], summary=TALE * 4_000)],
        ["budget_reached"],
        config={"maxTokens": 9_500},
    ),
}

BROKEN: Mapping[str, Broken] = {
    **DISTURBED,
    **IN_NODE,
    **IN_PYTHON,
    **USELESS,
    **HARMFUL,
    **NOT_THE_CODE,
    **LIMITED,
}
