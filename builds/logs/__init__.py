"""A build's log: written, redacted, and read back as entries, lines or one text."""
