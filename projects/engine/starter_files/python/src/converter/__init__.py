"""%%description:py%%

Amounts, converted from one unit to another: `convert(Decimal(5), "km", "mi")`.
"""

from converter.units import UnitError, convert, units_of

__all__ = ["UnitError", "convert", "units_of"]
