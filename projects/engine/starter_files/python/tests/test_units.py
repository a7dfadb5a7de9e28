from decimal import Decimal

import pytest

from converter import UnitError, convert, units_of
from converter.units import UNITS


@pytest.mark.parametrize(
    ("amount", "source", "target", "expected"),
    [
        ("5", "km", "m", "5000"),
        ("12", "in", "ft", "1"),
        ("26.2", "mi", "km", "42.1648128"),
        ("1", "lb", "g", "453.59237"),
        ("2", "cup", "ml", "473.176473"),
        ("90", "min", "h", "1.5"),
        ("100", "C", "K", "373.15"),
        ("-40", "C", "F", "-40"),
        ("98.6", "F", "C", "37"),
    ],
)
def test_amounts_are_converted(amount: str, source: str, target: str, expected: str) -> None:
    assert round(convert(Decimal(amount), source, target), 9) == Decimal(expected)


@pytest.mark.parametrize("symbol", UNITS)
def test_there_and_back_is_the_same_amount(symbol: str) -> None:
    first = units_of(UNITS[symbol].quantity)[0].symbol

    there = convert(Decimal("12.5"), symbol, first)

    assert round(convert(there, first, symbol), 12) == Decimal("12.5")


def test_case_matters_only_where_it_tells_units_apart() -> None:
    assert convert(Decimal(1), "KM", "M") == 1000


def test_quantities_do_not_mix() -> None:
    with pytest.raises(UnitError, match="kg is a unit of mass, and m is one of length"):
        convert(Decimal(1), "kg", "m")


def test_an_unknown_unit_is_told_with_likely_ones() -> None:
    with pytest.raises(UnitError, match=r"there is no unit 'kmm'; did you mean .*km"):
        convert(Decimal(1), "kmm", "m")
