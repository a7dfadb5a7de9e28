"""Pages of a build: its state, log, timeline and output files."""
