"""Amounts as recipes write them: `2`, `1/2`, `1 1/2`, `0.25`."""

import re
from fractions import Fraction

_AMOUNT = re.compile(r"\s*(?:(\d+)\s+)?(\d+/[1-9]\d*|\d+(?:\.\d+)?)(?![\d/.])")


def parse_amount(text: str) -> tuple[Fraction, str]:
    """The amount that a line starts with, and the rest of the line. Raises ValueError when it starts with none."""
    match = _AMOUNT.match(text)
    if match is None:
        raise ValueError(f"{text!r} does not start with an amount")
    whole, part = match.groups()
    return Fraction(whole or 0) + Fraction(part), text[match.end() :]


def format_amount(amount: Fraction) -> str:
    """The amount as a cook reads it: `1 1/2` and not `3/2`."""
    whole, rest = divmod(amount.numerator, amount.denominator)
    fraction = f"{rest}/{amount.denominator}" if rest else ""
    return " ".join(filter(None, (str(whole) if whole or not rest else "", fraction)))


def scale_line(line: str, factor: Fraction) -> str:
    """The line with its amount multiplied; a line without an amount is left as it is."""
    try:
        amount, rest = parse_amount(line)
    except ValueError:
        return line
    return format_amount(amount * factor) + rest
