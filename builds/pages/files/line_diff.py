"""A bounded line diff of two texts: pure functions of lines.

It uses difflib, whose time grows with the square of the number of equal lines, so it runs under a deadline. If it would
take too long, everything between the first and the last changed line counts as removed and added.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import Match, SequenceMatcher
from itertools import islice

CONTEXT = 3
# Pairs of equal lines: one find_longest_match over two million of them takes half a second.
MAX_PAIRS = 2_000_000
Blocks = list[tuple[str, int, int, int, int]]


@dataclass(frozen=True)
class Line:
    """A line of one text or of both, with its number in each, from 1; 0 in a text that does not have it."""

    text: str
    before: int
    after: int

    @property
    def kind(self) -> str:
        return "same" if self.before and self.after else "removed" if self.before else "added"

    @property
    def sign(self) -> str:
        return {"same": " ", "removed": "-", "added": "+"}[self.kind]


@dataclass(frozen=True)
class Hunk:
    """Consecutive lines after `skipped` unchanged ones, which begin at `line` of the newer text."""

    lines: list[Line]
    skipped: int = 0
    line: int = 1

    def pairs(self) -> Iterator[tuple[Line | None, Line | None]]:
        """The lines side by side as (before, after): removed lines next to those that replace them."""
        left: list[Line] = []
        right: list[Line] = []
        for line in [*self.lines, None]:
            if line and not line.after:
                left.append(line)
            elif line and not line.before:
                right.append(line)
            else:
                for at in range(max(len(left), len(right))):
                    yield left[at] if at < len(left) else None, right[at] if at < len(right) else None
                left, right = [], []
                if line:
                    yield line, line


@dataclass(frozen=True)
class Difference:
    """The hunks of a diff, the numbers of added and removed lines, and of unchanged lines after the last hunk.

    `left_out`: the number of lines cut from the hunks. `is_rough`: comparing line by line would have taken too long.
    """

    hunks: list[Hunk]
    added: int
    removed: int
    skipped: int
    left_out: int = 0
    is_rough: bool = False


def difference(
    before: Sequence[str], after: Sequence[str], *, most: int = sys.maxsize, deadline: float | None = None
) -> Difference:
    """The diff of two texts, in hunks of at most `most` lines in all.

    `deadline`: when to give up comparing, by time.thread_time(); None: after a second.
    """
    blocks, is_rough = _blocks(before, after, deadline or time.thread_time() + 1)
    changed = [block for block in blocks if block[0] != "equal"]
    added, removed = sum(j2 - j1 for *_, j1, j2 in changed), sum(i2 - i1 for _, i1, i2, *_ in changed)
    hunks: list[Hunk] = []
    passed = total = kept = 0  # `passed`: lines of the newer text that hunks have shown or skipped
    for group in _groups(blocks):
        start = group[0][3]
        total += sum(i2 - i1 if tag == "equal" else i2 - i1 + j2 - j1 for tag, i1, i2, j1, j2 in group)
        if kept < most:
            hunks.append(Hunk([*islice(_lines(group, before, after), most - kept)], start - passed, passed + 1))
            kept += len(hunks[-1].lines)
        passed = group[-1][4]
    skipped = len(after) - passed if kept == total and hunks else 0
    return Difference(hunks, added, removed, skipped, total - kept, is_rough)


def _groups(blocks: Blocks) -> Iterator[Blocks]:
    """Groups of nearby changed blocks, with CONTEXT unchanged lines around them."""
    group: Blocks = []
    for at, (tag, i1, i2, j1, j2) in enumerate(blocks):
        if tag != "equal":
            group.append((tag, i1, i2, j1, j2))
            continue
        is_last = at == len(blocks) - 1
        if group and (is_last or i2 - i1 > 2 * CONTEXT):
            yield [*group, (tag, i1, min(i1 + CONTEXT, i2), j1, min(j1 + CONTEXT, j2))]
            group = []
        if not is_last:
            # Unchanged lines inside a group are kept whole; before one, only the last CONTEXT lines are.
            begin = i1 if group else max(i1, i2 - CONTEXT)
            group.append((tag, begin, i2, j1 + begin - i1, j2))
    if group:
        yield group


def _lines(group: Blocks, before: Sequence[str], after: Sequence[str]) -> Iterator[Line]:
    for tag, i1, i2, j1, j2 in group:
        if tag == "equal":
            yield from (Line(after[j1 + at], i1 + at + 1, j1 + at + 1) for at in range(i2 - i1))
        else:
            yield from (Line(before[at], at + 1, 0) for at in range(i1, i2))
            yield from (Line(after[at], 0, at + 1) for at in range(j1, j2))


# --- Matching --------------------------------------------------------------------------------------------------------


class _TooSlowError(Exception):
    pass


class _Watched(SequenceMatcher[str]):
    """Stops at a deadline, between two searches."""

    def __init__(self, before: Sequence[str], after: Sequence[str], deadline: float) -> None:
        self.deadline = deadline
        super().__init__(None, before, after, autojunk=False)

    def find_longest_match(self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None) -> Match:
        if time.thread_time() > self.deadline:
            raise _TooSlowError
        return super().find_longest_match(alo, ahi, blo, bhi)


def _blocks(before: Sequence[str], after: Sequence[str], deadline: float) -> tuple[Blocks, bool]:
    """(difflib's opcodes, whether they are rough). Common lines at both ends are matched without difflib."""
    least = min(len(before), len(after))
    head = next((at for at in range(least) if before[at] != after[at]), least)
    tail = next((at for at in range(least - head) if before[-1 - at] != after[-1 - at]), least - head)
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    inner, is_rough = _inner(old, new, deadline)
    blocks: Blocks = [("equal", 0, head, 0, head)] if head else []
    blocks += [(tag, i1 + head, i2 + head, j1 + head, j2 + head) for tag, i1, i2, j1, j2 in inner]
    if tail:
        blocks.append(("equal", len(before) - tail, len(before), len(after) - tail, len(after)))
    return blocks, is_rough


def _inner(old: Sequence[str], new: Sequence[str], deadline: float) -> tuple[Blocks, bool]:
    whole: Blocks = [("replace", 0, len(old), 0, len(new))] if old or new else []
    if not old or not new:
        return whole, False
    counts = Counter(new)
    if sum(counts[line] for line in old) > MAX_PAIRS:
        return whole, True
    try:
        return list(_Watched(old, new, deadline).get_opcodes()), False
    except _TooSlowError:
        return whole, True
