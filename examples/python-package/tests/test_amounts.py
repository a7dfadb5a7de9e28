from fractions import Fraction

import pytest
from saltbox import format_amount, parse_amount, scale_line


@pytest.mark.parametrize(
    ("text", "amount"), [("2 eggs", 2), ("1/2 cup", Fraction(1, 2)), ("1 1/2 cups", Fraction(3, 2)), ("0.25 l", 0.25)]
)
def test_reads_what_recipes_write(text: str, amount: float) -> None:
    assert parse_amount(text)[0] == amount


@pytest.mark.parametrize("text", ["salt", "", "1/0 cup"])
def test_refuses_what_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="does not start with an amount"):
        parse_amount(text)


def test_writes_mixed_fractions() -> None:
    assert [format_amount(Fraction(*pair)) for pair in ((3, 2), (1, 2), (4, 2), (0, 1))] == ["1 1/2", "1/2", "2", "0"]


def test_scales_amounts_and_leaves_other_lines() -> None:
    assert scale_line("1 1/2 cups flour", Fraction(2)) == "3 cups flour"
    assert scale_line("salt to taste", Fraction(2)) == "salt to taste"
