"""Redis: whether one answers, and starting a private one if none does."""

import os
import secrets
import shutil
import socket
from urllib.parse import unquote, urlsplit

from scripts.place import Place
from scripts.processes import FIRST_STAGE, Service, bring_up, free_port, write_secret

_ANSWER_SECONDS = 2.0
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def answers(url: str) -> bool:
    """Whether a Redis, with any password, is at the URL."""
    try:
        with _connect_redis(url) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            if urlsplit(url).scheme == "rediss":
                return True  # a server listens; /health reports TLS errors
            connection.sendall(b"PING\r\n")
            return connection.recv(64)[:1] in (b"+", b"-")  # PONG, or an error about a missing password
    except OSError:
        return False


def _connect_redis(url: str) -> socket.socket:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_ANSWER_SECONDS)
        connection.connect(unquote(parts.path))
        return connection
    return socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout=_ANSWER_SECONDS)


def start(place: Place, *, keep: bool = True) -> tuple[Service, str]:
    """Start a private Redis on a free port; with its URL. `keep`: its data survives. Raises SetupError."""
    folder = place.data / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    password, port = secrets.token_hex(24), free_port()
    # Jobs are pickles: adding one means running code as this user. So a password, and not on the command line.
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {password}",
        'save ""',
        f"appendonly {'yes' if keep else 'no'}",
    ]
    settings = folder / "redis.conf"
    write_secret(settings, "\n".join(lines) + "\n")
    service = Service(
        "redis",
        [shutil.which("redis-server") or "redis-server", settings.name],
        folder=folder,
        log=place.log("redis"),
        environment=os.environ,
        stage=FIRST_STAGE,
    )
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    bring_up(service, lambda: answers(url), seconds=20)
    return service, url


def is_on_this_machine(redis_url: str) -> bool:
    parts = urlsplit(redis_url)
    return parts.scheme == "redis" and (parts.hostname or "127.0.0.1") in _LOOPBACK
