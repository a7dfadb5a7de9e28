"""Generations: actions on them, their queue, and the run from a prompt to a revision."""
