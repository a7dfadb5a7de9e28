"""From what tools print and the sandbox measures to a verdict. The samples are the tools' own words, shortened."""

import json
import time
from typing import Any

import pytest

from builds.symptoms import SYMPTOMS, is_suspect, signs
from builds.verdict_catalogue import CATALOGUE
from builds.verdicts import MAX_EVIDENCE_LINES, MAX_LINE_CHARS, EvidenceCollector, Verdict, VerdictClass, clean, verdict

# Code → (what a tool printed, what the message must say). One sample is one failed command.
SAMPLES: dict[str, list[tuple[str, str]]] = {
    "process_limit": [
        ("bash: fork: retry: Resource temporarily unavailable", "more processes"),
        ("sh: 0: Cannot fork", "more processes"),
        ("Error: spawn sleep EAGAIN\n    at ChildProcess._handle.onexit (node:internal/child_process:285:19)", ""),
        ("Error: spawnSync /bin/sh EAGAIN", ""),
        ("BlockingIOError: [Errno 11] Resource temporarily unavailable", ""),
        ("RuntimeError: can't start new thread", ""),
        ("  #  Assertion failed: (0) == (uv_thread_create(t.get(), start_thread, this))", ""),
        ("OpenBLAS blas_thread_init: pthread_create failed for thread 1 of 2: Resource temporarily unavailable", ""),
        ("runtime: failed to create new OS thread (have 2 already; errno=11)", ""),
    ],
    "out_of_memory": [
        ("FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory\nAborted", "memory"),
        ('Traceback (most recent call last):\n  File "a.py", line 1, in <module>\nMemoryError', ""),
        ("terminate called after throwing an instance of 'std::bad_alloc'", ""),
        ("OSError: [Errno 12] Cannot allocate memory", ""),
    ],
    "disk_limit": [
        ("npm error code ENOSPC\nnpm error nospc ENOSPC: no space left on device, write", "disk"),
        ("OSError: [Errno 28] No space left on device", ""),
        ("Error: EDQUOT: disk quota exceeded, write", ""),
    ],
    "lockfile_out_of_sync": [
        (
            "npm error code EUSAGE\nnpm error\n"
            "npm error `npm ci` can only install packages when your package.json and package-lock.json are in sync.\n"
            "npm error\nnpm error Missing: is-even@1.0.0 from lock file\n"
            "npm error Invalid: lock file's is-odd@3.0.0 does not satisfy is-odd@3.0.1\n" + "npm error Usage:\n" * 60,
            "does not match",
        ),
        ("npm ERR! The `npm ci` command can only install with an existing package-lock.json or", "missing"),
        (
            ' ERR_PNPM_OUTDATED_LOCKFILE  Cannot install with "frozen-lockfile" because pnpm-lock.yaml is not up to '
            "date with <ROOT>/package.json\n\n    Failure reason:\n"
            '    specifiers in the lockfile ({}) don\'t match specs in package.json ({"is-odd":"3.0.1"})',
            "",
        ),
        ("error Your lockfile needs to be updated, but yarn was run with `--frozen-lockfile`.", ""),
        ("➤ YN0028: │ The lockfile would have been modified by this install, which is explicitly forbidden.", ""),
    ],
    "invalid_manifest": [
        (
            "npm error code EJSONPARSE\n"
            "npm error JSON.parse Invalid package.json: JSONParseError: Expected double-quoted property name in JSON",
            "cannot be used",
        ),
        ('npm error Invalid package name "a b" of package "a b@*": name can only contain URL-friendly characters.', ""),
        (
            " ERROR  Expected double-quoted property name in JSON at position 30 while parsing '{\"a\":1,}' "
            "in /workspace/app/package.json",
            "package.json cannot be used",
        ),
        (
            "error SyntaxError: /workspace/app/package.json: Expected ',' in JSON at position 3",
            "package.json cannot be used",
        ),
        (" ERR_PNPM_JSON_PARSE  Expected double-quoted property name", ""),
        ("configuration error: `project.version` must be pep440\nDESCRIPTION:", ""),
        ("ERROR: Invalid requirement: 'six==': Expected end or semicolon (after name)", "Invalid requirement: 'six=='"),
    ],
    "dependency_conflict": [
        (
            "npm error code ERESOLVE\nnpm error ERESOLVE unable to resolve dependency tree\nnpm error\n"
            "npm error While resolving: x@1.0.0\nnpm error Found: react@18.2.0\nnpm error node_modules/react\n"
            'npm error   react@"18.2.0" from the root project\nnpm error\nnpm error Could not resolve dependency:\n'
            'npm error peer react@"17.0.2" from react-dom@17.0.2',
            "contradict",
        ),
        (" ERR_PNPM_PEER_DEP_ISSUES  Unmet peer dependencies", ""),
        (
            "ERROR: Cannot install -r requirements.txt (line 1) and urllib3==1.20 because these package versions have "
            "conflicting dependencies.\n\nThe conflict is caused by:\n    The user requested urllib3==1.20\n"
            "    requests 2.31.0 depends on urllib3<3 and >=1.21.1\n\n"
            "ERROR: ResolutionImpossible: for help visit a page",
            "",
        ),
    ],
    "registry_unavailable": [
        ("npm error code ECONNREFUSED\nnpm error syscall connect\nnpm error errno ECONNREFUSED", "could not fetch"),
        ("npm error code SELF_SIGNED_CERT_IN_CHAIN", ""),
        ("npm error 403 403 Forbidden - GET https://registry.example/is-even", ""),
        (" ERR_PNPM_FETCH_403  GET https://registry.example/is-odd: Forbidden - 403", ""),
        ("error Error: https://r.example/x: tunneling socket could not be established, statusCode=403", ""),
        ("curl: (56) CONNECT tunnel failed, response 403", ""),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'ProxyError('Cannot connect to proxy.', "
            "OSError('Tunnel connection failed: 403 Forbidden'))': /simple/six/\n"
            "ERROR: Could not find a version that satisfies the requirement six (from versions: none)\n"
            "ERROR: No matching distribution found for six",
            "",
        ),
        ("➤ YN0001: │ RequestError: Bad response: 403", ""),
        ("gyp ERR! stack FetchError: request to https://headers.example/v22.tar.gz failed", ""),
    ],
    "dependency_not_found": [
        (
            "npm error code E404\nnpm error 404 Not Found - GET https://registry.example/nope\nnpm error 404\n"
            "npm error 404  'nope@1.0.0' is not in this registry.",
            "nope@1.0.0",
        ),
        ("npm error 404  The requested resource 'nope@1.0.0' could not be found or you do not have", "nope@1.0.0"),
        ("npm error code ETARGET\nnpm error notarget No matching version found for is-odd@99.0.0.", "is-odd@99.0.0."),
        (
            " ERR_PNPM_FETCH_404  GET https://registry.example/nope: Not Found - 404\n\n"
            "nope is not in the npm registry, or you have no permission to fetch it.",
            "nope",
        ),
        ("Error: ERR_PNPM_FETCH_404\n  ├─▶ Failed\n  │   Failed to resolve nope@1.0.0", "nope@1.0.0"),
        (
            "  ├─▶ Failed to resolve dependency tree: No matching version found for is-\n  │   odd@99.0.0\n"
            "  ╰─▶ No matching version found for is-odd@99.0.0 while fetching it from",
            "is-odd@99.0.0",
        ),
        ('error Couldn\'t find package "nope" on the "npm" registry.', "nope"),
        ('error Couldn\'t find any versions for "is-odd" that matches "99.0.0"', "is-odd"),
        ("➤ YN0035: │ nope@npm:1.0.0: Package not found", "nope@npm:1.0.0"),
        ("➤ YN0082: │ is-odd@npm:99.0.0: No candidates found", "is-odd@npm:99.0.0"),
        (
            "ERROR: Could not find a version that satisfies the requirement six==99 (from versions: 1.0, 1.1)\n"
            "ERROR: No matching distribution found for six==99",
            "six==99",
        ),
    ],
    "missing_script": [
        ('npm error Missing script: "build"\nnpm error\nnpm error To see a list of scripts, run:', "`build`"),
        ('npm ERR! Missing script: "build"', "`build`"),
        (' ERR_PNPM_NO_SCRIPT  Missing script: build:prod\n\nCommand "build:prod" not found.', "`build:prod`"),
        ('error Command "build" not found.', "`build`"),
        ('Usage Error: Couldn\'t find a script named "build".', "`build`"),
    ],
    "egress_blocked": [
        ("Failed to fetch `Inter` from Google Fonts.\nModule not found: Can't resolve 'font'", "Google Fonts"),
        ("TypeError: fetch failed\n  [cause]: Error: getaddrinfo EAI_AGAIN files.example\n", "files.example"),
        ("curl: (6) Could not resolve host: files.example", "files.example"),
        ("urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>", "the network"),
        ("connect: Network is unreachable", "the network"),
    ],
    "type_error": [
        ("src/App.tsx(3,32): error TS2345: Argument of type 'string' is not assignable.", "src/App.tsx, line 3"),
        (
            "\x1b[96msrc/App.tsx\x1b[0m:\x1b[93m3\x1b[0m:\x1b[93m32\x1b[0m - \x1b[91merror\x1b[0m\x1b[90m TS2345: "
            "\x1b[0mArgument of type 'string' is not assignable.",
            "src/App.tsx, line 3",
        ),
        ("src/a.ts(1,17): error TS2307: Cannot find module './b' or its corresponding type declarations.", "line 1"),
        ("src/pages/index.astro:4:9 - error ts(2322): Type 'string' is not assignable.", "index.astro, line 4"),
        ("error TS5058: The specified path does not exist: 'nope.json'.", "refuses"),
        ('1795491093698 ERROR "src/App.svelte" 3:32 "Type \'string\' is not assignable."', "src/App.svelte, line 3"),
        ("/workspace/app/src/C.svelte:2:7\nError: Type 'string' is not assignable. (ts)", "src/C.svelte, line 2"),
        ("./src/app/page.tsx:5:7\nType error: Property 'a' does not exist on type 'B'.", "./src/app/page.tsx, line 5"),
        ("/workspace/app/src/v.ts:1:17\nError: Cannot find module './A' or its corresponding type declarations.", ""),
        ("✘ [ERROR] TS2322: Type 'string' is not assignable.\n\n    src/app/app.ts:5:2:", "src/app/app.ts, line 5"),
    ],
    "module_not_found": [
        (
            '[vite]: Rollup failed to resolve import "nope" from "/workspace/app/src/main.jsx".\n'
            "This is most likely unintended because it can break your application at runtime.",
            "The module nope cannot be found in src/main.jsx",
        ),
        ('[vite]: Rolldown failed to resolve import "nope" from "/workspace/app/src/main.jsx".', "src/main.jsx"),
        ("\x1b[31m[UNRESOLVED_IMPORT] \x1b[0mCould not resolve './nope' in src/main.jsx", "./nope"),
        ('[!] RollupError: Could not resolve "./nope" from "src/r.js"', "./nope cannot be found in src/r.js"),
        ('Could not resolve entry module "index.html".', "index.html"),
        (
            '✘ [ERROR] Could not resolve "nope"\n\n    src/r.js:1:14:\n      1 │ import',
            "nope cannot be found in src/r.js",
        ),
        (
            "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'nope' imported from /workspace/app/src/r.js",
            "The module nope cannot be found in src/r.js",
        ),
        ("Error: Cannot find module 'nope'\nRequire stack:\n- /workspace/app/c.cjs", "The module nope"),
        (
            "ERROR in ./src/r.js 1:0-26\nModule not found: Error: Can't resolve 'nope' in '/workspace/app/src'",
            "nope cannot be found in ./src/r.js, line 1",
        ),
        (
            'Traceback (most recent call last):\n  File "/workspace/app/s.py", line 1, in <module>\n    import nope\n'
            "ModuleNotFoundError: No module named 'nope'",
            "nope cannot be found in s.py, line 1",
        ),
        ("pyproject_hooks._impl.BackendUnavailable: Cannot import 'nope.backend'", "nope.backend"),
        ("ERROR: Backend 'nope.backend' is not available.", "nope.backend"),
    ],
    "syntax_error": [
        ("  File \"app.py\", line 2\n    if x\n        ^\nSyntaxError: expected ':'", "app.py, line 2"),
        ('  File "lib/b.py", line 3\n    return 2\nTabError: inconsistent use of tabs', "lib/b.py, line 3"),
        (
            "file:///workspace/app/src/bad.js:1\nconst a = ;\n          ^\n\nSyntaxError: Unexpected token ';'",
            "src/bad.js, line 1",
        ),
        (
            "[vite:build-html] Transform failed with 1 error:\n"
            "/workspace/app/src/main.jsx:4:0: ERROR: Unexpected end of file",
            "src/main.jsx, line 4",
        ),
        (
            "[builtin:vite-transform] Unexpected token\n   ╭─[ src/main.jsx:2:16 ]\n   │",
            "src/main.jsx, line 2",
        ),
        ('✘ [ERROR] Unexpected ";"\n\n    src/bad.js:1:10:\n      1 │ const a = ;', "src/bad.js, line 1"),
        ("[!] RollupError: src/bad.js (1:10): Expression expected", "src/bad.js, line 1"),
        ("ERROR in ./src/bad.js 1:10\nModule parse failed: Unexpected token (1:10)", "./src/bad.js, line 1"),
        ("SyntaxError: /workspace/app/src/App.js: Unexpected token (3:5)", "src/App.js"),
        ("[vite:css] [postcss] /workspace/app/src/s.css:3:1: Unknown word", ""),
        ("Error:   x Expected ';', got 'b'\n   ,-[/workspace/app/src/a.ts:1:1]", ""),
    ],
    "command_not_found": [
        ("> x@1.0.0 build\n> nope build\n\nsh: 1: nope: not found", "`nope`"),
        ("/bin/sh: 1: nope: not found\nerror Command failed with exit code 127.", "`nope`"),
        ("bash: line 1: nope: command not found", "`nope`"),
        ("command not found: nope", "`nope`"),
        ('exec: "nope": executable file not found in $PATH', "`nope`"),
    ],
}
INSTALLATION = {
    "lockfile_out_of_sync",
    "invalid_manifest",
    "dependency_conflict",
    "registry_unavailable",
    "dependency_not_found",
}


def judged(output: str, *, phase: str = "build", exit_code: int | None = 1, **measured: Any) -> Verdict:
    collector = EvidenceCollector()
    for line in output.split("\n"):
        collector.feed(line, "stderr")
    return collector.judge(phase=phase, exit_code=exit_code, **measured)


# --- The catalogue -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_code_has_whole_sentences_even_when_nothing_else_is_known(code: str) -> None:
    told = verdict(code, phase="build")

    assert told.message.endswith(".")
    assert told.hint.endswith(".")
    assert "{" not in told.message + told.hint
    assert told.retryable is (told.cls is VerdictClass.INFRA or code == "registry_unavailable")


def test_a_verdict_is_json_with_the_api_s_names() -> None:
    told = verdict("build_failed", phase="build", evidence=["a.js:1"], exit_code=2, ending="failed with exit code 2")

    document = json.loads(json.dumps(told.as_json()))

    assert document == {
        "class": "build",
        "code": "build_failed",
        "phase": "build",
        "message": "The build command failed with exit code 2.",
        "evidence": ["a.js:1"],
        "hint": told.hint,
        "retryable": False,
        "exitCode": 2,
    }


@pytest.mark.parametrize(
    ("code", "limit", "told"),
    [
        ("timeout", 3.5, "3.5 seconds"),
        ("timeout", 3600, "3,600 seconds"),
        ("out_of_memory", 512 * 1024**2, "512 MiB"),
        ("out_of_memory", 1.5 * 1024**3, "1.5 GiB"),
        ("process_limit", 256, "256"),
        ("too_many_artifacts", 10_000, "10,000"),
        ("artifacts_too_large", 900, "900 bytes"),
    ],
)
def test_a_limit_is_told_in_its_unit(code: str, limit: float, told: str) -> None:
    assert told in verdict(code, phase="build", limit=limit).message


def test_facts_with_braces_and_escapes_are_only_text() -> None:
    told = verdict("module_not_found", phase="build", module="{x}\x1b[31m\x00\ud800", evidence=["{0}\x1b]0;title\x07"])

    assert "The module {x}? cannot be found" in told.message
    assert told.evidence == ("{0}",)


def test_an_unknown_code_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        verdict("no_such_code", phase="build")


# --- Patterns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "output", "told"),
    [(code, output, told) for code, samples in SAMPLES.items() for output, told in samples],
)
def test_a_tool_s_words_become_the_verdict(code: str, output: str, told: str) -> None:
    phase = "installation" if code in INSTALLATION else "build"

    result = judged(output, phase=phase)

    assert result.code == code
    assert told in result.message
    assert (result.phase, result.exit_code) == (phase, 1)
    assert 1 <= len(result.evidence) <= MAX_EVIDENCE_LINES


def test_every_pattern_is_shown_by_a_sample() -> None:
    lines = [line for samples in SAMPLES.values() for output, _ in samples for line in output.split("\n")]

    suspect = [line for line in map(clean, lines) if is_suspect(line)]
    shown = {sign.symptom for line in suspect for sign in signs(line)}

    assert [symptom.pattern.pattern for symptom in SYMPTOMS if symptom not in shown] == []


@pytest.mark.parametrize(
    "output",
    [
        "3 errors were found by the linter",
        "Error: ENOSPC: System limit for number of file watchers reached",
        'src/main.jsx (1:8): "nope" is not exported by "src/o.js", imported by "src/main.jsx".',
        "error: Multiple top-level packages discovered in a flat-layout: ['b', 'a'].",
        "[chef] BUILD PASSED",
    ],
)
def test_what_no_pattern_knows_is_a_failed_build_with_its_words(output: str) -> None:
    result = judged(output)

    assert result.code == "build_failed"
    assert result.evidence == (output,)


def test_a_failed_installation_shows_the_script_s_words_and_not_npm_s() -> None:
    output = (
        "npm error code 3\nnpm error path /workspace/app\nnpm error command failed\n"
        "npm error command sh -c node check.cjs\nnpm error no compiler here\nnpm error A complete log of this run: x"
    )

    result = judged(output, phase="installation", exit_code=3)

    assert (result.code, result.message) == ("install_failed", "The installation failed with exit code 3.")
    assert result.evidence == ("npm error no compiler here",)


# --- Precedence --------------------------------------------------------------------------------------------------

TS_ERROR = "src/App.tsx(3,7): error TS2322: Type 'string' is not assignable to type 'number'."


@pytest.mark.parametrize(
    ("measured", "code"),
    [
        ({"timed_out": True, "oom_killed": True, "process_limit_hit": True}, "timeout"),
        ({"oom_killed": True, "process_limit_hit": True}, "out_of_memory"),
        ({"process_limit_hit": True, "disk_limit_hit": True}, "process_limit"),
        ({"disk_limit_hit": True}, "disk_limit"),
        ({}, "type_error"),
    ],
)
def test_what_was_measured_outweighs_what_the_log_says(measured: dict[str, bool], code: str) -> None:
    assert judged(TS_ERROR, exit_code=None, **measured).code == code


def test_the_limit_that_was_hit_is_told() -> None:
    assert "512 MiB" in judged("", oom_killed=True, memory_bytes=512 * 1024**2).message
    assert "60 seconds" in judged("", timed_out=True, timeout_seconds=60).message
    assert "256" in judged("sh: 0: Cannot fork", pids=256).message


def test_a_child_that_was_killed_for_memory_is_told_even_if_the_command_ends_well() -> None:
    assert judged("done", exit_code=0, oom_killed=True).code == "out_of_memory"


@pytest.mark.parametrize(("exit_code", "told"), [(137, "137, as if killed by SIGKILL"), (129, "SIGHUP"), (7, "code 7")])
def test_an_exit_code_is_no_proof_of_a_signal_s_cause(exit_code: int, told: str) -> None:
    result = judged("Killed", exit_code=exit_code)

    assert (result.code, result.cls, result.exit_code) == ("build_failed", VerdictClass.BUILD, exit_code)
    assert told in result.message


def test_a_shell_s_127_settles_that_a_command_is_missing() -> None:
    output = f"sh: 1: vue-tsc: not found\n{TS_ERROR}"

    assert judged(output, exit_code=127).code == "command_not_found"
    assert judged(output, exit_code=2).code == "type_error"


def test_a_shortage_explains_the_errors_that_follow_it() -> None:
    assert judged(f"{TS_ERROR}\nFATAL ERROR: JavaScript heap out of memory").code == "out_of_memory"


# --- Blocked hosts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "output",
    [
        "npm error 403 403 Forbidden - GET https://files.example/x.tgz",
        "npm error fatal: unable to access 'https://files.example/y.git/': CONNECT tunnel failed, response 403",
        "➤ YN0001: │ RequestError: Bad response: 403",
        "ERROR: Could not find a version that satisfies the requirement x (from versions: none)",
        "downloading the binary from https://files.example/bin failed",
    ],
)
def test_an_installation_that_lacks_a_blocked_host_says_so(output: str) -> None:
    result = judged(output, phase="installation", blocked_hosts=["other.example", "files.example"])

    assert (result.code, result.cls) == ("egress_blocked", VerdictClass.POLICY)
    assert ("files.example" if "files.example" in output else "other.example") in result.message
    assert result.evidence[0] == output


def test_a_blocked_host_that_nothing_asked_for_in_the_end_is_not_the_reason() -> None:
    output = "npm error code ERESOLVE\nnpm error ERESOLVE unable to resolve dependency tree"

    result = judged(output, phase="installation", blocked_hosts=["telemetry.example"])

    assert result.code == "dependency_conflict"


# --- Evidence ----------------------------------------------------------------------------------------------------


def test_evidence_starts_with_the_line_that_names_the_cause() -> None:
    output = SAMPLES["dependency_not_found"][0][0]

    assert judged(output, phase="installation").evidence[0] == "npm error 404  'nope@1.0.0' is not in this registry."


def test_evidence_keeps_the_context_in_its_order_after_the_error() -> None:
    output = "setting up\n  File \"app.py\", line 2\n    if x\n        ^\nSyntaxError: expected ':'"

    assert judged(output).evidence == (
        "SyntaxError: expected ':'",
        "setting up",
        '  File "app.py", line 2',
        "    if x",
        "        ^",
    )


def test_evidence_is_bounded_and_free_of_escapes() -> None:
    lines = [f"\x1b[31msrc/a{number}.ts(1,1): error TS1005: {'x' * 1000}\x1b[0m" for number in range(500)]

    result = judged("\n".join(lines))

    assert len(result.evidence) == MAX_EVIDENCE_LINES
    assert all(len(line) == MAX_LINE_CHARS and "\x1b" not in line for line in result.evidence)
    assert result.evidence[0].startswith("src/a0.ts(1,1): error TS1005:")


def test_the_system_s_own_lines_are_no_evidence() -> None:
    collector = EvidenceCollector()
    collector.feed("$ npm run build # Missing script: build", "system")
    collector.feed("boom", "stdout")

    assert collector.judge(phase="build", exit_code=1).evidence == ("boom",)


def test_an_early_cause_survives_a_flood_of_output() -> None:
    collector = EvidenceCollector()
    collector.feed(TS_ERROR, "stdout")
    for number in range(5_000):
        collector.feed(f"chunk {number} written", "stdout")

    assert collector.judge(phase="build", exit_code=2).evidence == (TS_ERROR,)


def test_a_cause_at_the_end_of_a_flood_of_errors_is_found() -> None:
    collector = EvidenceCollector()
    started = time.process_time()
    for number in range(100_000):
        collector.feed(f"error {number}")

    collector.feed('npm error Missing script: "build"')

    assert collector.judge(phase="build", exit_code=1).code == "missing_script"
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    "line",
    ["x" * 5_000_000, " " * 400, "(" * 400, "a:" * 200, "npm error " * 40, "error " * 66, 'File "' * 66, "[" * 400],
    ids=lambda line: f"{line[:6]!r} x {len(line)}",
)
def test_no_line_takes_long(line: str) -> None:
    collector = EvidenceCollector()
    started = time.process_time()

    collector.feed(line)

    assert time.process_time() - started < 0.5
