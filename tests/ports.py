"""Local ports for servers that tests start."""

import contextlib
import secrets
import socket


def free_port() -> int:
    """An unused port below the ephemeral range, so that it stays free for a while."""
    while True:
        port = 20_000 + secrets.randbelow(10_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def answers(port: int) -> bool:
    """Whether a server accepts connections on a local port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
