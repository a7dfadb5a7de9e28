"""Projects that are accepted and must end as `failed`, each with its expected verdict."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.e2e.corpus import BUN_LOCK, NPM_LOCK, Project, Sources, manifest, marked_app, project


@dataclass(frozen=True)
class Faulty:
    """How to make a project, and its expected verdict.

    A line of the evidence must match the pattern `evidence`. `exit_code` is the tool's, None if no command ended.
    """

    make: Callable[[Sources], Project]
    code: str
    phase: str
    exit_code: int | None
    evidence: str
    cls: str = "build"


def _changed(template: str, path: str, before: str, after: str) -> Callable[[Sources], Project]:
    """A create-vite template with one mistake."""

    def make(sources: Sources) -> Project:
        files = sources.template(template)
        text = files[path].decode()
        assert before in text
        return Project({**files, path: text.replace(before, after).encode()})

    return make


def _commanded(command: str, **strategy: Any) -> Callable[[Sources], Project]:
    """A Node project without dependencies whose build is one shell command."""
    strategy = {"buildCommand": command, "outputs": ["dist"], **strategy}
    return _made({"package.json": manifest()}, strategy=strategy)


def _made(files: dict[str, str], **options: Any) -> Callable[[Sources], Project]:
    return lambda _: project(files, **options)


def _with_stale_lock(lock: dict[str, str]) -> Callable[[Sources], Project]:
    def make(_: Sources) -> Project:
        app = marked_app(lock)
        described = json.loads(app.files["package.json"])
        described["dependencies"]["is-number"] = "7.0.0"
        return Project({**app.files, "package.json": json.dumps(described).encode()})

    return make


IN_THE_CODE = {
    "TypeScript error": Faulty(
        _changed("vanilla-ts", "src/counter.ts", "let counter = 0", "let counter: number = 'zero'"),
        "type_error",
        "build",
        1,
        r"src/counter\.ts\(2,7\): error TS2322: Type 'string' is not assignable to type 'number'",
    ),
    "missing module": Faulty(
        _changed("vanilla", "src/main.js", "import './style.css'", "import 'never-installed'"),
        "module_not_found",
        "build",
        1,
        r"never-installed.*main\.js",
    ),
    "missing script": Faulty(
        _commanded("npm run build"), "missing_script", "build", 1, r"npm error Missing script: \"build\""
    ),
    "unknown command": Faulty(
        _commanded("no-such-tool --production"), "command_not_found", "build", 127, r"no-such-tool: not found"
    ),
    "own exit code": Faulty(
        _commanded("echo 'Error: the lights are off' >&2; exit 7"),
        "build_failed",
        "build",
        7,
        r"^Error: the lights are off$",
    ),
    "Python syntax": Faulty(
        _made({"main.py": "print('fine')\n", "lib/broken.py": "def f(:\n    pass\n"}),
        "syntax_error",
        "build",
        1,
        r"lib/broken\.py.*line 1",
    ),
    "time limit": Faulty(
        _commanded("echo 'waiting for ever'; sleep 60", timeout=6000),
        "timeout",
        "build",
        None,
        r"waiting for ever",
        cls="limit",
    ),
}

IN_THE_INSTALLATION = {
    "failing install script": Faulty(
        _made(
            {
                "package.json": manifest(
                    scripts={"postinstall": "node check.cjs", "build": "true"}, dependencies={"is-number": "7.0.0"}
                ),
                "check.cjs": "console.log('checking'); console.error('no compiler here'); process.exitCode = 3;\n",
            }
        ),
        "install_failed",
        "installation",
        3,
        r"no compiler here",
    ),
    "no such npm version": Faulty(
        _made({"index.html": "x"}, dependencies={"is-number": "99.0.0"}),
        "dependency_not_found",
        "installation",
        1,
        r"is-number@99\.0\.0",
    ),
    "no such PyPI version": Faulty(
        _made({"main.py": "import markdown\n", "requirements.txt": "markdown==99.0\n"}),
        "dependency_not_found",
        "installation",
        1,
        r"No matching distribution found for markdown==99\.0",
    ),
    "lock file out of step": Faulty(
        _with_stale_lock({"package-lock.json": NPM_LOCK}),
        "lockfile_out_of_sync",
        "installation",
        1,
        r"is-number@7\.0\.0 from lock file",
    ),
    "Bun's lock file out of step": Faulty(
        _with_stale_lock({"bun.lock": BUN_LOCK}),
        "lockfile_out_of_sync",
        "installation",
        1,
        r"saved: is-number was added",
    ),
}

IN_THE_MANIFEST = {
    "broken package.json": Faulty(
        _made({"package.json": '{\n  "name": "x",\n  "scripts": {,}\n}\n'}),
        "invalid_manifest",
        "preparation",
        None,
        r"^package\.json:3:\d+: ",
    ),
    "package.json is a list": Faulty(
        _made({"package.json": "[]"}), "invalid_manifest", "preparation", None, r"package\.json"
    ),
    "broken pyproject.toml": Faulty(
        _made({"pyproject.toml": '[project]\nname = "x\n'}),
        "invalid_manifest",
        "preparation",
        None,
        r"^pyproject\.toml:2:\d+: ",
    ),
    "no build script for Bun": Faulty(
        _made({"package.json": manifest(packageManager="bun@1.2.0"), "index.ts": "console.log(1)\n"}),
        "missing_script",
        "build",
        1,
        r"Script not found \"build\"",
    ),
    "no build script": Faulty(
        _made({"package.json": manifest(), "index.js": "console.log(1)\n"}),
        "missing_script",
        "build",
        1,
        r"Missing script",
    ),
    "nothing to build from": Faulty(
        _made({"hello.cob": "DISPLAY 'HELLO'."}), "no_runtime_detected", "preparation", None, r"hello\.cob"
    ),
    "a Node version that does not exist": Faulty(
        _made({"package.json": manifest(engines={"node": "^12"}, scripts={"build": "true"})}),
        "unsupported_runtime_version",
        "preparation",
        None,
        r"\^12",
    ),
}

IN_THE_OUTPUT = {
    "no output": Faulty(_commanded("echo done"), "no_output", "artifacts", None, r"looked for: dist"),
    "empty output": Faulty(_commanded("mkdir dist"), "no_output", "artifacts", None, r"looked for: dist"),
    "output is a link": Faulty(
        _commanded("ln -s /etc dist"), "unsafe_output", "artifacts", None, r"dist is a link", cls="policy"
    ),
}

FAILING = {**IN_THE_CODE, **IN_THE_INSTALLATION, **IN_THE_MANIFEST, **IN_THE_OUTPUT}
