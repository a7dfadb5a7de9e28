"""The API's doors: parse, call one action, render."""
