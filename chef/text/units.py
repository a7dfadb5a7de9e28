"""Parses amounts of memory as Docker writes them."""

import re

_FACTORS = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}


def parse_bytes(text: str) -> int:
    """A whole number of bytes from "512m", "1g", "1.5g" or "1048576"; factors are 1,024, as in Docker.

    Raises ValueError, with a sentence that says what to write, for anything else, including zero and less.
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([bkmgt]?)(?:i?b)?", text.strip().lower())
    amount = int(float(match[1]) * _FACTORS[match[2]]) if match else 0
    if amount <= 0:
        raise ValueError(f"{text!r} is not an amount of memory: write a number with k, m or g, such as 512m.")
    return amount
