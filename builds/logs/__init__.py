"""What a build prints: written, redacted, and read back as lines or as one text."""
