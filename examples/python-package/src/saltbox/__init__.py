"""Amounts in recipes: read them, scale them, write them."""

from saltbox.amounts import format_amount, parse_amount, scale_line

__all__ = ["format_amount", "parse_amount", "scale_line"]
