"""HTTP, independent of projects and builds: errors, streaming, downloads, pagination, rate limits, signed messages."""
