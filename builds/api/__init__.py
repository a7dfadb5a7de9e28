"""The API: parse, call one action, render."""
