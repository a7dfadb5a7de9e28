"""The languages that builds run on: detection, plans, images, registries."""
