"""The command: `convert 5 km mi`, and `convert --list` for all units."""

import argparse
import sys
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from converter.units import UNITS, UnitError, convert, units_of

DIGITS = 6


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code; wrong usage ends the program with code 2, as argparse has it."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.list:
        print(_listing())
        return 0
    if given.target is None:
        parser.error("give an amount, its unit and the unit to convert to, as in: 5 km mi")
    try:
        result = convert(given.amount, given.source, given.target)
    except UnitError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    print(f"{written(given.amount)} {given.source} = {written(result)} {given.target}")
    return 0


def written(amount: Decimal) -> str:
    """The amount with as many digits as it needs, and six at most that are significant after the point."""
    places = max(0, DIGITS - 1 - amount.adjusted()) if amount else 0
    text = f"{round(amount, places):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="convert", description="Convert an amount from one unit to another."
    )
    parser.add_argument("amount", type=_amount, nargs="?", help="a number, as in 5, -40 or 2.5")
    parser.add_argument("source", nargs="?", help="the unit it is in, as in km")
    parser.add_argument("target", nargs="?", help="the unit to convert to, as in mi")
    parser.add_argument("--list", action="store_true", help="list the units and stop")
    return parser


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or abs(amount.adjusted()) > 30:
        raise argparse.ArgumentTypeError(f"{text!r} is no number that can be converted")
    return amount


def _listing() -> str:
    quantities = dict.fromkeys(unit.quantity for unit in UNITS.values())
    lines = []
    for quantity in quantities:
        lines.append(f"{quantity}:")
        lines += [f"  {unit.symbol:<5} {unit.name}" for unit in units_of(quantity)]
    return "\n".join(lines)
