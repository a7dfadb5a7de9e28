"""The installation's folders, and the environment of its processes."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from scripts.processes import SetupError

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_DOCKER_HOST = "unix:///var/run/docker.sock"
# For the egress proxies' sockets below it: see builds.checks.
_LONGEST_BUILD_DIR = 107 - len("/0123456789ab-9999999/proxy.sock")


@dataclass(frozen=True)
class Place:
    """A data folder, and the environment that all processes of the installation share."""

    data: Path
    environment: Mapping[str, str]

    @classmethod
    def from_environment(cls) -> "Place":
        """From the environment, and from the file .env for what it does not set. Raises SetupError."""
        environment = {**read_env_file(ROOT / ".env"), **os.environ}
        data = Path(environment.get("CHEF_DATA_DIR") or ROOT / "var").resolve()
        environment |= {"CHEF_DATA_DIR": str(data), "PYTHONUNBUFFERED": "1"}
        # Installations on the same engine need different names, or they remove each other's containers.
        name = hashlib.sha256(str(data).encode()).hexdigest()[:8]
        environment.setdefault("CHEF_INSTALLATION", f"chef-{name}")
        if not environment.get("BUILD_DIR") and len(os.fsencode(data / "builds")) > _LONGEST_BUILD_DIR:
            # The kernel limits the length of a unix socket's path, and the data folder's may be long.
            environment["BUILD_DIR"] = str(Path(tempfile.gettempdir()) / f"chef-{name}")
        return cls(data, _with_certificates(environment))

    def with_environment(self, **changes: str) -> "Place":
        return replace(self, environment={**self.environment, **changes})

    def log(self, name: str) -> Path:
        return self.data / "log" / f"{name}.log"

    @property
    def port(self) -> int:
        return _port(self.environment, "PORT", 3001)

    @property
    def docker_host(self) -> str:
        return self.environment.get("DOCKER_HOST") or DEFAULT_DOCKER_HOST

    @property
    def redis_url(self) -> str:
        """Built as in chef.settings."""
        host = self.environment.get("REDIS_HOST") or "127.0.0.1"
        password = self.environment.get("REDIS_PASSWORD")
        auth = f":{password}@" if password else ""
        default = f"redis://{auth}{host}:{_port(self.environment, 'REDIS_PORT', 6379)}/0"
        return self.environment.get("REDIS_URL") or default

    @property
    def redis_address(self) -> str:
        """The URL without its password."""
        parts = urlsplit(self.redis_url)
        return f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path


def read_env_file(path: Path, *, commented: bool = False) -> dict[str, str]:
    """NAME=value lines without quotes around the value; other lines are skipped. Empty if there is no file.

    `commented`: also those after a "#", which is how an example file lists optional settings.
    """
    found = {}
    for line in path.read_text().splitlines() if path.is_file() else []:
        if commented:
            line = line.removeprefix("#")
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and name.isidentifier():
            value = value.strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            found[name] = value[1:-1] if quoted else value
    return found


def _with_certificates(environment: dict[str, str]) -> dict[str, str]:
    """A custom certificate bundle, in each tool's own variable."""
    if bundle := environment.get("SSL_CERT_FILE"):
        bundle = str(Path(bundle).resolve())
        if not Path(bundle).is_file():
            raise SetupError(
                f"SSL_CERT_FILE={bundle} is not a file: set it to one with certificates in PEM form, or unset it."
            )
        environment["SSL_CERT_FILE"] = bundle
        environment.setdefault("PIP_CERT", bundle)
        environment.setdefault("NODE_EXTRA_CA_CERTS", bundle)
    return environment


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise SetupError(f"{name}={text!r} is not a port: write a number from 1 to 65535.")
    return int(text)
