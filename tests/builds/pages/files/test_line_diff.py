"""The line diff of two texts, and that the worst cases stay cheap."""

import random
import time

import pytest

from builds.pages.files.line_diff import Difference, difference

pytestmark = pytest.mark.once


def applied(before: list[str], after: list[str], found: Difference) -> list[str]:
    """The newer text, made by applying the diff to the older one."""
    out: list[str] = []
    at = 0
    for hunk in found.hunks:
        assert hunk.line == len(out) + 1
        out += before[at : at + hunk.skipped]
        at += hunk.skipped
        for line in hunk.lines:
            if line.before:
                assert (line.before, line.text) == (at + 1, before[at])
                at += 1
            if line.after:
                out.append(line.text)
                assert (line.after, line.text) == (len(out), after[len(out) - 1])
    return out + before[at:]


@pytest.mark.parametrize("seed", range(40))
def test_applying_the_diff_gives_the_newer_text(seed: int) -> None:
    chance = random.Random(seed)
    before = [chance.choice("abcdefgh") for _ in range(chance.randrange(60))]
    after = list(before)
    for _ in range(chance.randrange(6)):
        at = chance.randrange(len(after) + 1)
        after[at : at + chance.randrange(3)] = [chance.choice("abcxyz") for _ in range(chance.randrange(4))]

    found = difference(before, after)

    assert applied(before, after, found) == after
    assert not found.is_rough
    shown = [line for hunk in found.hunks for line in hunk.lines]
    assert (found.added, found.removed) == (
        sum(line.kind == "added" for line in shown),
        sum(line.kind == "removed" for line in shown),
    )
    covered = sum(line.after > 0 for line in shown) + sum(hunk.skipped for hunk in found.hunks) + found.skipped
    assert covered == (len(after) if found.hunks else 0)
    for hunk in found.hunks:
        pairs = list(hunk.pairs())
        assert [left for left, _ in pairs if left] == [line for line in hunk.lines if line.before]
        assert [right for _, right in pairs if right] == [line for line in hunk.lines if line.after]


def test_unchanged_lines_far_from_a_change_are_folded() -> None:
    before = [f"line {number}" for number in range(1, 101)]
    after = [*before[:49], "new", *before[50:89], *before[90:]]

    found = difference(before, after)

    assert [(hunk.skipped, hunk.line, len(hunk.lines)) for hunk in found.hunks] == [(46, 1, 8), (33, 54, 7)]
    assert (found.added, found.removed, found.skipped) == (1, 2, 7)


WORST = {
    "all alike": (["x"] * 50_000, ["y", *["x"] * 49_000, "z"]),
    "nothing alike": ([str(number) for number in range(50_000)], [f"-{number}" for number in range(50_000)]),
    "alternate lines identical": (
        [text for number in range(1_400) for text in (f"a{number}", "")],
        [text for number in range(1_400) for text in (f"b{number}", "")],
    ),
    "turned around": ([str(number) for number in range(20_000)], [str(number) for number in range(20_000, 0, -1)]),
}


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), WORST.values(), ids=WORST.keys())
def test_the_worst_texts_are_compared_in_bounded_time(before: list[str], after: list[str]) -> None:
    began = time.thread_time()

    found = difference(before, after)

    assert time.thread_time() - began < 6
    assert applied(before, after, found) == after
