"""Verdicts from Bun's output."""

import pytest

from builds.runtimes.bun.runtime import BUN
from builds.runtimes.bun.symptoms import TOOL_PATTERNS
from builds.verdicts.evidence import EvidenceCollector, Verdict, clean
from tests.builds.runtimes.bun.tool_outputs import SAMPLES


def judged(output: str, *, phase: str, exit_code: int = 1, blocked: tuple[str, ...] = ()) -> Verdict:
    collector = EvidenceCollector(BUN.patterns)
    for line in output.split("\n"):
        collector.feed(line, "stderr")
    return collector.judge(phase=phase, exit_code=exit_code, blocked_hosts=blocked)


@pytest.mark.parametrize(
    ("code", "phase", "output", "message"),
    [(code, *sample) for code, samples in SAMPLES.items() for sample in samples],
)
def test_bun_s_output_is_recognised(code: str, phase: str, output: str, message: str) -> None:
    result = judged(output, phase=phase)

    assert result.code == code
    assert message in result.message
    assert result.evidence


def test_every_pattern_has_a_sample() -> None:
    lines = [line for samples in SAMPLES.values() for _, output, _ in samples for line in output.split("\n")]

    shown = {
        sign.symptom for line in map(clean, lines) if BUN.patterns.is_suspect(line) for sign in BUN.patterns.signs(line)
    }

    assert [symptom.pattern.pattern for symptom in TOOL_PATTERNS.symptoms if symptom not in shown] == []


def test_a_missing_script_says_where_to_add_it() -> None:
    assert "Add `scripts.build` to package.json" in judged('error: Script not found "build"', phase="build").hint


def test_a_host_refused_by_the_proxy_is_named() -> None:
    output = "error: ProxyConnectFailed (403) downloading tarball x@github:a/b\nerror: x@github:a/b failed to resolve"

    result = judged(output, phase="installation", blocked=("code.example",))

    assert result.code == "egress_blocked"
    assert "code.example" in result.message


def test_a_repository_is_not_reported_as_a_missing_package() -> None:
    output = (
        'error: "git" is not installed (needed for "x")\nerror: ENOENT cloning repository for x\n'
        "error: x@git+https://git.example/a/b.git failed to resolve"
    )

    result = judged(output, phase="installation")

    assert result.code == "install_failed"
    assert result.evidence[0] == 'error: "git" is not installed (needed for "x")'


def test_bun_s_closing_lines_are_not_evidence() -> None:
    output = 'the lights are off\n\nBun v1.4.5 (Linux x64)\nerror: script "build" exited with code 3'

    result = judged(output, phase="build", exit_code=3)

    assert (result.code, result.evidence) == ("build_failed", ("the lights are off",))
