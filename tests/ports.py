"""Ports of this machine for servers that tests start."""

import contextlib
import secrets
import socket


def free_port() -> int:
    """One that nobody listens at, below those that outgoing connections take: it is to be free in a while, too."""
    while True:
        port = 20_000 + secrets.randbelow(10_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
