"""Stored bytes: the S3-compatible store, and encryption of secrets in the database."""
