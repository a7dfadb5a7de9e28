"""Verdicts from tools' output and from what the sandbox measured."""

import json
import time
from typing import Any

import pytest

from builds.runtimes.catalogue import RUNTIMES
from builds.runtimes.node.runtime import NODE
from builds.runtimes.python.runtime import PYTHON
from builds.verdicts.catalogue import CATALOGUE
from builds.verdicts.evidence import (
    MAX_EVIDENCE_LINES,
    MAX_LINE_CHARS,
    EvidenceCollector,
    Verdict,
    VerdictClass,
    clean,
    verdict,
)
from builds.verdicts.patterns import COMMON, Patterns
from tests.builds.verdicts.tool_outputs import SAMPLES

# The patterns of the tools whose output the samples are.
PATTERNS = COMMON + NODE.tool_patterns + PYTHON.tool_patterns
pytestmark = pytest.mark.once
INSTALLATION = {
    "lockfile_out_of_sync",
    "invalid_manifest",
    "dependency_conflict",
    "registry_unavailable",
    "dependency_not_found",
}


def judged(
    output: str,
    *,
    phase: str = "build",
    exit_code: int | None = 1,
    patterns: Patterns = PATTERNS,
    **measured: Any,
) -> Verdict:
    collector = EvidenceCollector(patterns)
    for line in output.split("\n"):
        collector.feed(line, "stderr")
    return collector.judge(phase=phase, exit_code=exit_code, **measured)


# --- The catalogue -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_code_has_full_sentences_without_facts(code: str) -> None:
    result = verdict(code, phase="build")

    assert result.message.endswith(".")
    assert result.hint.endswith(".")
    assert "{" not in result.message + result.hint
    assert result.retryable is (result.cls is VerdictClass.INFRA or code == "registry_unavailable")


def test_a_verdict_serializes_with_the_api_s_field_names() -> None:
    result = verdict("build_failed", phase="build", evidence=["a.js:1"], exit_code=2, ending="failed with exit code 2")

    document = json.loads(json.dumps(result.as_json()))

    assert document == {
        "class": "build",
        "code": "build_failed",
        "phase": "build",
        "message": "The build command failed with exit code 2.",
        "evidence": ["a.js:1"],
        "hint": result.hint,
        "retryable": False,
        "exitCode": 2,
    }


@pytest.mark.parametrize(
    ("code", "limit", "expected"),
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
def test_a_limit_is_shown_in_its_unit(code: str, limit: float, expected: str) -> None:
    assert expected in verdict(code, phase="build", limit=limit).message


def test_braces_and_escapes_in_facts_are_plain_text() -> None:
    result = verdict(
        "module_not_found", phase="build", module="{x}\x1b[31m\x00\ud800", evidence=["{0}\x1b]0;title\x07"]
    )

    assert "The module {x}? cannot be found" in result.message
    assert result.evidence == ("{0}",)


def test_an_unknown_code_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        verdict("no_such_code", phase="build")


# --- Patterns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "output", "expected"),
    [(code, output, expected) for code, samples in SAMPLES.items() for output, expected in samples],
)
def test_tool_output_is_recognised(code: str, output: str, expected: str) -> None:
    phase = "installation" if code in INSTALLATION else "build"

    result = judged(output, phase=phase)
    of_runtimes = [judged(output, phase=phase, patterns=runtime.patterns) for runtime in RUNTIMES.values()]

    assert result.code == code
    assert expected in result.message
    assert (result.phase, result.exit_code) == (phase, 1)
    assert 1 <= len(result.evidence) <= MAX_EVIDENCE_LINES
    assert result in of_runtimes, "one runtime's patterns are enough"


def test_every_pattern_has_a_sample() -> None:
    lines = [line for samples in SAMPLES.values() for output, _ in samples for line in output.split("\n")]

    suspect = [line for line in map(clean, lines) if PATTERNS.is_suspect(line)]
    shown = {sign.symptom for line in suspect for sign in PATTERNS.signs(line)}

    assert [symptom.pattern.pattern for symptom in PATTERNS.symptoms if symptom not in shown] == []


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
def test_unknown_output_is_a_failed_build_with_that_evidence(output: str) -> None:
    result = judged(output)

    assert result.code == "build_failed"
    assert result.evidence == (output,)


def test_a_failed_installation_shows_the_script_s_output_and_not_npm_s() -> None:
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
def test_measured_limits_take_precedence_over_the_log(measured: dict[str, Any], code: str) -> None:
    assert judged(TS_ERROR, exit_code=None, **measured).code == code


def test_the_message_names_the_limit_that_was_hit() -> None:
    assert "512 MiB" in judged("", oom_killed=True, memory_bytes=512 * 1024**2).message
    assert "60 seconds" in judged("", timed_out=True, timeout_seconds=60).message
    assert "256" in judged("sh: 0: Cannot fork", pids=256).message


def test_an_oom_killed_child_counts_even_if_the_command_succeeds() -> None:
    assert judged("done", exit_code=0, oom_killed=True).code == "out_of_memory"


@pytest.mark.parametrize(("exit_code", "expected"), [(137, "137, as after SIGKILL"), (129, "SIGHUP"), (7, "code 7")])
def test_an_exit_code_of_a_signal_does_not_prove_its_cause(exit_code: int, expected: str) -> None:
    result = judged("Killed", exit_code=exit_code)

    assert (result.code, result.cls, result.exit_code) == ("build_failed", VerdictClass.BUILD, exit_code)
    assert expected in result.message


def test_exit_code_127_proves_a_missing_command() -> None:
    output = f"sh: 1: vue-tsc: not found\n{TS_ERROR}"

    assert judged(output, exit_code=127).code == "command_not_found"
    assert judged(output, exit_code=2).code == "type_error"


def test_out_of_memory_takes_precedence_over_other_errors() -> None:
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
def test_a_failed_installation_names_the_blocked_host(output: str) -> None:
    result = judged(output, phase="installation", blocked_hosts=["other.example", "files.example"])

    assert (result.code, result.cls) == ("egress_blocked", VerdictClass.POLICY)
    assert ("files.example" if "files.example" in output else "other.example") in result.message
    assert result.evidence[0] == output


def test_a_blocked_host_that_did_not_cause_the_failure_is_not_blamed() -> None:
    output = "npm error code ERESOLVE\nnpm error ERESOLVE unable to resolve dependency tree"

    result = judged(output, phase="installation", blocked_hosts=["telemetry.example"])

    assert result.code == "dependency_conflict"


# --- Evidence ----------------------------------------------------------------------------------------------------


def test_evidence_starts_with_the_line_that_names_the_cause() -> None:
    output = SAMPLES["dependency_not_found"][0][0]

    assert judged(output, phase="installation").evidence[0] == "npm error 404  'nope@1.0.0' is not in this registry."


def test_context_follows_the_error_in_its_original_order() -> None:
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


def test_system_lines_are_not_evidence() -> None:
    collector = EvidenceCollector(PATTERNS)
    collector.feed("$ npm run build # Missing script: build", "system")
    collector.feed("boom", "stdout")

    assert collector.judge(phase="build", exit_code=1).evidence == ("boom",)


def test_an_early_cause_survives_a_flood_of_output() -> None:
    collector = EvidenceCollector(PATTERNS)
    collector.feed(TS_ERROR, "stdout")
    for number in range(5_000):
        collector.feed(f"chunk {number} written", "stdout")

    assert collector.judge(phase="build", exit_code=2).evidence == (TS_ERROR,)


def test_a_cause_at_the_end_of_a_flood_of_errors_is_found() -> None:
    collector = EvidenceCollector(PATTERNS)
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
    collector = EvidenceCollector(PATTERNS)
    started = time.process_time()

    collector.feed(line)

    assert time.process_time() - started < 0.5
