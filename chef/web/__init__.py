"""HTTP that knows no project and no build: errors, streaming, downloads, pagination, rate limits, signed messages."""
