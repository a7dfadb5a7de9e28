"""The runtimes that builds run on: detection, plans, images, registries."""
