"""Where bytes are kept: an S3-compatible store, and sealing for what the database must not show."""
