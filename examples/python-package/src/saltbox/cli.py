"""The command: `saltbox FACTOR < recipe`."""

import sys
from collections.abc import Sequence

from saltbox.amounts import parse_amount, scale_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Scale standard input's lines by the one argument, which is an amount itself. Returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        factor, rest = parse_amount(" ".join(given))
    except ValueError:
        factor, rest = None, ""
    if factor is None or rest.strip():
        print("usage: saltbox FACTOR < recipe", file=sys.stderr)
        return 2
    for line in sys.stdin:
        sys.stdout.write(scale_line(line, factor))
    return 0
