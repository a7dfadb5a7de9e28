"""The Bun runtime."""
