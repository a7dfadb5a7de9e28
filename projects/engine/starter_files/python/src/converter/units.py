"""Units, and how amounts go from one to another. Exact: factors are what the units are defined by."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal


class UnitError(ValueError):
    """A conversion that cannot be made; the text says why."""


@dataclass(frozen=True)
class Unit:
    """`base` = (amount + `offset`) × `factor`, `base` being the amount in the first unit of the same quantity."""

    symbol: str
    name: str
    quantity: str
    factor: Decimal
    offset: Decimal = Decimal(0)


def _units() -> Iterator[Unit]:
    tables = {
        "length": {
            "m": ("metre", "1"),
            "mm": ("millimetre", "0.001"),
            "cm": ("centimetre", "0.01"),
            "km": ("kilometre", "1000"),
            "in": ("inch", "0.0254"),
            "ft": ("foot", "0.3048"),
            "yd": ("yard", "0.9144"),
            "mi": ("mile", "1609.344"),
        },
        "mass": {
            "kg": ("kilogram", "1"),
            "g": ("gram", "0.001"),
            "t": ("tonne", "1000"),
            "oz": ("ounce", "0.028349523125"),
            "lb": ("pound", "0.45359237"),
        },
        "volume": {
            "l": ("litre", "1"),
            "ml": ("millilitre", "0.001"),
            "floz": ("US fluid ounce", "0.0295735295625"),
            "cup": ("US cup", "0.2365882365"),
            "gal": ("US gallon", "3.785411784"),
        },
        "time": {
            "s": ("second", "1"),
            "min": ("minute", "60"),
            "h": ("hour", "3600"),
            "d": ("day", "86400"),
            "wk": ("week", "604800"),
        },
    }
    for quantity, table in tables.items():
        for symbol, (name, factor) in table.items():
            yield Unit(symbol, name, quantity, Decimal(factor))
    yield Unit("K", "kelvin", "temperature", Decimal(1))
    yield Unit("C", "degree Celsius", "temperature", Decimal(1), Decimal("273.15"))
    yield Unit("F", "degree Fahrenheit", "temperature", Decimal(5) / Decimal(9), Decimal("459.67"))


UNITS = {unit.symbol: unit for unit in _units()}


def convert(amount: Decimal, source: str, target: str) -> Decimal:
    """The amount in another unit. Raises UnitError for unknown units, and for those of different quantities."""
    before, after = find(source), find(target)
    if before.quantity != after.quantity:
        raise UnitError(
            f"{before.symbol} is a unit of {before.quantity}, and {after.symbol} is one of {after.quantity}"
        )
    return (amount + before.offset) * before.factor / after.factor - after.offset


def find(symbol: str) -> Unit:
    """The unit of that symbol, in whatever case unless that makes a difference. Raises UnitError, with likely ones."""
    if symbol in UNITS:
        return UNITS[symbol]
    by_folded = {known.casefold(): unit for known, unit in UNITS.items()}
    if unit := by_folded.get(symbol.casefold()):
        return unit
    likely = difflib.get_close_matches(symbol.casefold(), by_folded, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(by_folded[key].symbol for key in likely)}?" if likely else ""
    raise UnitError(f"there is no unit {symbol!r}{hint}")


def units_of(quantity: str) -> list[Unit]:
    return [unit for unit in UNITS.values() if unit.quantity == quantity]
