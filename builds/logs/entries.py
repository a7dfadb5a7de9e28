"""One entry of a log as the API and live readers give it: made by hand, because there are thousands of them."""

from typing import Any

from builds.models import LogChunk


def entry_document(chunk: LogChunk) -> dict[str, Any]:
    """The API's LogEntry of a chunk."""
    return {
        "sequence": chunk.sequence,
        "attempt": chunk.attempt,
        "phase": chunk.phase,
        "stream": chunk.stream,
        "timestamp": chunk.timestamp,
        "text": chunk.text,
    }
