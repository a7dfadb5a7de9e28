from decimal import Decimal

import pytest

from converter.cli import main, written


def test_it_prints_the_conversion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["5", "km", "mi"]) == 0

    assert capsys.readouterr().out == "5 km = 3.10686 mi\n"


def test_a_negative_amount_is_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-40", "C", "F"]) == 0

    assert capsys.readouterr().out == "-40 C = -40 F\n"


def test_the_list_has_every_quantity(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0

    printed = capsys.readouterr().out
    assert "length:" in printed
    assert "  km    kilometre" in printed


def test_units_that_do_not_fit_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["5", "km", "kg"]) == 1

    assert "km is a unit of length" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["5"], ["5", "km"], ["five", "km", "mi"], ["nan", "km", "mi"]])
def test_wrong_usage_is_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert "usage: convert" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0"),
        ("5.00", "5"),
        ("3.106855961", "3.10686"),
        ("1234567", "1234567"),
        ("0.00012", "0.00012"),
        ("100", "100"),
    ],
)
def test_amounts_are_written_short(amount: str, text: str) -> None:
    assert written(Decimal(amount)) == text
